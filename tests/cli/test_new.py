from pathlib import Path
from typing import Any

import pytest
from reference.model_folders import TEMPLATE, tokenizer_around, weights, write_model_folder
from ruamel.yaml import YAML

from actshift.config.schema import Config, parse_config

ROOT = Path(__file__).resolve().parents[2]


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def config_in(path: Path) -> Config:
    return parse_config(load(path), origin=str(path))


@pytest.fixture
def out(tmp_path: Path, hub_home: Path) -> Path:
    assert not hub_home.exists()
    return tmp_path / "mine.yaml"


def test_a_zoo_pair(actshift, out: Path) -> None:
    assert actshift("new", "zoo:llama/base@1", "zoo:llama/chat@1", "-o", out).exit_code == 0
    config = config_in(out)
    assert config.run == config.pairs[0].name == "llama"
    assert config.pairs[0].base == "zoo:llama/base@1"
    assert config.pairs[0].dtype == "float32"
    assert {prompts.source for prompts in config.prompts.values()} == {"zoo"}


def test_a_hub_pair_takes_the_public_prompt_sets(actshift, out: Path) -> None:
    assert actshift("new", "org/a@1.0", "org/b-Instruct.v2", "-o", out).exit_code == 0
    config = config_in(out)
    pair = config.pairs[0]
    assert (pair.name, pair.base, pair.tuned) == ("b-Instruct-v2", "org/a", "org/b-Instruct.v2")
    assert (pair.revision.base, pair.revision.tuned) == ("1.0", "main")
    assert pair.dtype == "bfloat16"
    assert load(out)["prompts"] == load(ROOT / "config/paper.yaml")["prompts"]


def test_a_local_pair_takes_its_dtype_from_the_model(actshift, out: Path, tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "base", dtype="float16")
    tuned = write_model_folder(tmp_path / "my tuned: model")
    result = actshift("new", base, tuned, "-o", out, "--name", "mine")
    assert result.exit_code == 0, result.output
    pair = config_in(out).pairs[0]
    assert (pair.name, pair.base, pair.tuned) == ("mine", str(base), str(tuned))
    assert pair.dtype == "float16"


def test_the_config_says_how_to_run_it(actshift, out: Path) -> None:
    result = actshift("new", "zoo:qwen/base", "zoo:qwen/chat", "-o", out)
    assert f"snakemake --configfile {out}" in result.stdout
    assert f"snakemake --configfile {out} --cores" in out.read_text()


def test_mistakes_write_nothing(actshift, out: Path, tmp_path: Path) -> None:
    small = write_model_folder(tmp_path / "small")
    large = write_model_folder(tmp_path / "large", tensors=weights(layers=4), num_hidden_layers=4)
    qwen = write_model_folder(tmp_path / "qwen", model_type="qwen3")
    pickled = write_model_folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF\x03\0\0\0")
    braced = write_model_folder(tmp_path / "{x}")
    words = write_model_folder(tmp_path / "words", added=())
    cases = {
        ("zoo:lama/base", "zoo:llama/chat"): "unknown zoo family 'lama'",
        ("gpt2", "org/b"): "expected zoo:",
        ("./nowhere", "org/b"): "does not exist",
        (small, large): "one depth and width",
        (small, qwen): "pairs.qwen.tuned: architecture 'qwen3' (model_type in config.json) is not",
        (pickled, small): "its weights only as pytorch_model.bin",
        (small, gguf): "m.gguf is a GGUF file, which is not read",
        (braced, small): "has a brace, which Snakemake reads as a wildcard",
        (words, small): "is no token of base's tokenizer",
        (small, words / "config.json"): "does not exist",
        ("org/a", "org/b", "--name", "no spaces"): "a pair named 'no spaces'",
        ("org/a", "org/___"): "--name",
    }
    for arguments, part in cases.items():
        result = actshift("new", *arguments, "-o", out)
        assert result.exit_code == 2, (arguments, result.output)
        assert part in result.stderr
        assert result.stderr.count("\n") == 1
        assert not out.exists()


def test_what_a_run_can_live_with_is_a_warning(actshift, out: Path, tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "base")
    tuned = write_model_folder(tmp_path / "tuned", tensors=weights(rows=7), vocab_size=7)
    result = actshift("new", base, tuned, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("actshift: warning: pairs.tuned: base has 6 and tuned 7 rows")
    assert result.stderr.count("\n") == 1
    assert out.exists()


def test_an_adapter_may_bring_the_chat_template_that_base_lacks(
    actshift, out: Path, tmp_path: Path
) -> None:
    base = write_model_folder(tmp_path / "base", template=None)
    adapter = tmp_path / "lora"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).touch()
    result = actshift("new", base, f"lora:{adapter}", "-o", out)
    assert result.exit_code == 2
    assert "no chat template in" in result.stderr
    (adapter / "chat_template.jinja").write_text(TEMPLATE)
    result = actshift("new", base, f"lora:{adapter}", "-o", out)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_model_inside_another_gives_its_dtype(actshift, out: Path, tmp_path: Path) -> None:
    text = {"model_type": "ministral3", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 6}
    for name in ("base", "tuned"):
        write_model_folder(
            tmp_path / name,
            tensors=weights(prefix="language_model."),
            model_type="mistral3",
            text_config=text | {"dtype": "float16"},
        )
    result = actshift("new", tmp_path / "base", tmp_path / "tuned", "-o", out)
    assert result.exit_code == 0, result.output
    assert config_in(out).pairs[0].dtype == "float16"


def test_nothing_is_overwritten(actshift, out: Path) -> None:
    out.write_text("mine")
    result = actshift("new", "org/a", "org/b", "-o", out)
    assert result.exit_code == 2
    assert "is not overwritten" in result.stderr
    assert out.read_text() == "mine"


def test_sides_that_end_raw_text_differently_are_refused(actshift, out: Path, tmp_path: Path):
    base, tuned = (write_model_folder(tmp_path / role) for role in ("base", "tuned"))
    tokenizer_around(base, "$A")
    tokenizer_around(tuned, "$A </s>")
    result = actshift("new", base, tuned, "-o", out)
    assert result.exit_code != 0
    assert "base ends raw text with no token and tuned with </s>" in result.stderr
    assert not out.exists()
    tokenizer_around(tuned, "<s> $A")
    result = actshift("new", base, tuned, "-o", out)
    assert result.exit_code == 0
    assert "warning: pairs.tuned: base begins raw text with no token and tuned" in result.stderr
