"""What the files of a model tell: every fault is a real file, none is a mock."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reference.model_folders import ADDED, TEMPLATE, weights, write_model_folder, write_tokenizer

from actshift.models.findings import model_findings
from actshift.models.language_model import bare_name, language_type
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import Place

LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"


def files(folder: Path, *, whole: bool = True) -> ModelFiles:
    return ModelFiles(Place(folder, whole=whole))


def lines(folder: Path, *, whole: bool = True) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in model_findings(files(folder, whole=whole))]


def test_a_sound_model_has_no_finding(tmp_path: Path) -> None:
    assert lines(write_model_folder(tmp_path / "m")) == []
    assert lines(write_model_folder(tmp_path / "h", tensors=weights(head=6))) == []


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text", "phi3", "olmo2", "gpt_neox", None])
def test_an_architecture_that_is_not_in_the_table(tmp_path: Path, kind: str | None) -> None:
    (told,) = lines(write_model_folder(tmp_path / "m", model_type=kind))
    assert told[0] == "error"
    assert f"architecture {kind!r} (model_type in config.json) is not supported" in told[1]
    assert "supported: llama, gemma2, qwen2, ministral3, mistral, gpt2, mistral3 around" in told[1]


@pytest.mark.parametrize(
    ("config", "read"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}, "ministral3"),
        ({"model_type": "mistral3", "text_config": {"model_type": "mistral"}}, "mistral"),
        ({"model_type": "mistral3", "text_config": {"model_type": "llama"}}, None),
        ({"model_type": "mistral3"}, None),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, None),
    ],
)
def test_a_language_model_inside_another(config: dict[str, object], read: str | None) -> None:
    assert language_type(config) == read


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("vision_tower.ln_pre.weight", None),
        ("wte.weight", "transformer.wte.weight"),
        ("h.3.attn.c_attn.bias", "transformer.h.3.attn.c_attn.bias"),
        ("h.3.attn.bias", None),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("model.multi_modal_projector.norm.weight", None),
    ],
)
def test_names_inside_another_model(name: str, bare: str | None) -> None:
    assert bare_name(name) == bare


def test_an_unsupported_language_model_inside_names_both(tmp_path: Path) -> None:
    text = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8}
    told = lines(write_model_folder(tmp_path / "m", model_type="mistral3", text_config=text))
    assert "architecture 'mistral3' around 'llama' (text_config in config.json)" in told[0][1]


def test_ministral_needs_the_numbers_that_scale_its_queries(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1}
    made = write_model_folder(tmp_path / "m", model_type="ministral3", rope_parameters=rope)
    (told,) = lines(made)
    assert told[0] == "error"
    assert "no original_max_position_embeddings, without which ministral3 cannot" in told[1]
    rope["original_max_position_embeddings"] = 64
    write_model_folder(tmp_path / "m", model_type="ministral3", rope_parameters=rope)
    assert lines(made) == lines(write_model_folder(tmp_path / "n", model_type="ministral3")) == []


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors", "mxfp4"])
def test_quantised_weights_are_refused_by_name(tmp_path: Path, method: str) -> None:
    how = {"quant_method": method}
    (told,) = lines(write_model_folder(tmp_path / "m", quantization_config=how))
    assert told[0] == "error"
    assert f"quantised ({method}" in told[1]
    assert "take the checkpoint that they were made from" in told[1]
    assert (
        lines(write_model_folder(tmp_path / "f", quantization_config={"quant_method": "fp8"})) == []
    )


def replace_weights(name: str, content: bytes) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)

    return act


def link_to_nowhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")


def shards_without_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def only_slow_tokenizer(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "tokenizer.json").rename(folder / name)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (replace_weights("pytorch_model.bin", b"x"), "its weights only as pytorch_model.bin"),
        (replace_weights("model.pt", b"x"), "never loaded: convert them to safetensors"),
        (replace_weights("m-Q4.gguf", b"GGUF"), "m-Q4.gguf is a GGUF file, which is not read"),
        (replace_weights("model.safetensors", LFS.encode()), "Git LFS pointer, not the file"),
        (replace_weights("README.md", b"x"), "has no *.safetensors"),
        (replace_weights("training_args.bin", b"x"), "has no *.safetensors"),
        (shards_without_index, "neither model.safetensors nor model.safetensors.index.json"),
        (link_to_nowhere, "model.safetensors is a link that leads nowhere"),
        (cut_off, "is cut off"),
        (only_slow_tokenizer("vocab.json"), "only as vocab.json and merges.txt"),
        (only_slow_tokenizer("tokenizer.model"), "only as tokenizer.model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json: save"),
        (lambda folder: (folder / "tokenizer.json").write_text(LFS), "Git LFS pointer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (lambda folder: (folder / "config.json").write_text(LFS), "Git LFS pointer"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    ],
)
def test_a_fault_of_the_files_is_one_error(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = write_model_folder(tmp_path / "m")
    spoil(folder)
    (told,) = lines(folder)
    assert told[0] == "error"
    assert said in told[1]
    assert "\n" not in told[1]


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds an adapter (adapter_config.json): write lora:" in lines(tmp_path)[0][1]
    # A config.json is left there by some trainers.
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "holds an adapter (adapter_config.json): write lora:" in lines(tmp_path)[0][1]


def test_a_merged_model_beside_what_is_left_of_its_adapter_is_a_model(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    assert lines(folder) == []
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (only,) = lines(folder)
    assert "holds a model and an adapter" in only[1]
    assert "move the adapter's files away" in only[1]


def test_what_the_cache_of_the_hub_lacks_is_not_missed(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "m")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert lines(folder, whole=False) == []
    index = {"weight_map": {"a": "one.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert lines(folder, whole=False) == []
    assert "one.safetensors is missing" in lines(folder)[0][1]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (weights(rows=7), "vocab_size 6 and the embedding has 7 rows"),
        (weights(head=9), "vocab_size 6 and the head has 9 rows"),
        (weights(layers=1), "config.json says 2 blocks and the weights hold 1"),
        (weights(width=4), "hidden_size 8 and the embedding is 4 wide"),
    ],
)
def test_weights_of_another_config(tmp_path: Path, tensors: dict, said: str) -> None:
    (told,) = lines(write_model_folder(tmp_path / "m", tensors=tensors))
    assert told[0] == "error"
    assert said in told[1]


def test_tokens_without_an_embedding(tmp_path: Path) -> None:
    added = (*ADDED, "<pad>")
    (told,) = lines(write_model_folder(tmp_path / "pad", added=added))
    assert told[0] == "warning"
    assert "1 tokens beyond the 6 rows of the embedding, first '<pad>' (6)" in told[1]
    writes = write_model_folder(tmp_path / "m", added=added, template=TEMPLATE + "<pad>")
    assert ("error", "its chat template writes '<pad>'") in [
        (level, text.split(",")[0]) for level, text in lines(writes)
    ]


def test_a_template_that_refuses_a_question(tmp_path: Path) -> None:
    template = "{{ raise_exception('system turn needed') }}"
    (told,) = lines(write_model_folder(tmp_path / "m", template=template))
    assert told == (
        "error",
        "its chat template refuses a conversation of one question (system turn needed)",
    )
    # Variables that transformers gives to every template.
    asks = "{% if tools is not none %}{{ raise_exception('tools') }}{% endif %}" + TEMPLATE
    marks = "{% generation %}" + TEMPLATE + "{%- endgeneration -%}{{ strftime_now('%Y') }}"
    for template in (asks, marks):
        assert lines(write_model_folder(tmp_path / "n", template=template)) == []
    # What only the tokenizer's own renderer knows is left to it.
    assert lines(write_model_folder(tmp_path / "n", template="{{ unknown_function() }}")) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja is not UTF-8"),
        ("chat_template.jinja", LFS.encode(), "chat_template.jinja is a Git LFS pointer"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": ["<x>"]}', "added_tokens_decoder of"),
        ("added_tokens.json", b'{"<x>": "six"}', "added_tokens.json is not as transformers"),
        ("tokenizer.json", b'{"model": {"vocab": ["<x>"]}, "added_tokens": ["<x>"]}', "tokenizer"),
    ],
)
def test_a_damaged_file_of_the_tokenizer_is_one_error(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    folder = write_model_folder(tmp_path / "m")
    (folder / name).write_bytes(content)
    ((level, text),) = lines(folder)
    assert level == "error"
    assert said in text


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_the_disk_does_not_give_is_an_error_by_its_name(
    tmp_path: Path, name: str
) -> None:
    folder = write_model_folder(tmp_path / "m")
    (folder / name).unlink()
    (folder / name).symlink_to("/proc/self/mem")
    found = lines(folder)
    assert found
    for level, text in found:
        assert level == "error"
        assert "Input/output error" in text
        assert str(folder) in text


def test_a_damaged_index_beside_an_adapter_is_one_error(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "m")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{")
    ((level, text),) = lines(folder)
    assert level == "error"
    assert "model.safetensors.index.json is not valid JSON" in text


def test_a_unigram_vocabulary_is_numbered_by_place(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "m")
    core = {"model": {"vocab": [["<unk>", 0.0], ["a", -1.5]]}, "added_tokens": None}
    (folder / "tokenizer.json").write_text(json.dumps(core))
    assert files(folder).vocabulary == {"<unk>": 0, "a": 1}
    write_tokenizer(folder)
    assert len(files(folder).vocabulary or {}) == 6
