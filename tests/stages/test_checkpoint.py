import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from actshift.errors import UserError
from actshift.io.atomic import hash_file, hash_json, tree_files
from actshift.io.manifest import check_manifest, read_manifest
from actshift.stages.checkpoint import make_checkpoint, stamped_hash, template_hash

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 5}
TEMPLATE = "{{ messages[0].content }}"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def write_model(folder: Path, *, seed: int = 0, shards: int = 1) -> Path:
    """Write a small Hugging Face folder, with code and pickles that must be left alone."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(seed).standard_normal((5, 8)).astype(np.float32)
    if shards == 1:
        save_file({"embed": values}, folder / "model.safetensors")
    else:
        names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        for i, name in enumerate(names):
            save_file({f"part{i}": values + i}, folder / name)
        index = {"weight_map": {f"part{i}": name for i, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"hello": 0}}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


def make(tmp_path: Path, source: str, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": "p.base",
        "out": tmp_path / "results/r/checkpoints/p.base",
        "made": None,
        "dtype": "float32",
        "stamps": tmp_path / "stamps",
    }
    return make_checkpoint(source, **{**settings, **changes})


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write_model(tmp_path / "local")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results/r/checkpoints/p.base"


def test_a_local_folder_becomes_links_and_a_manifest(
    tmp_path: Path, local: Path, out: Path
) -> None:
    facts = make(tmp_path, str(local))
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert tree_files(out) == sorted([*names, "manifest.json"])
    assert all((out / name).readlink() == (local / name).resolve() for name in names)
    assert read_manifest(out)["kind"] == "checkpoint"
    assert read_manifest(out)["facts"] == facts
    assert check_manifest(out, deep=True) == []


def test_the_facts(tmp_path: Path, local: Path) -> None:
    facts = make(tmp_path, str(local), dtype="bfloat16")
    weights = {"model.safetensors": hash_file(local / "model.safetensors")}
    assert facts == {
        "model": "p.base",
        "source": str(local),
        "revision": None,
        "family": "llama",
        "n_layers": 2,
        "d_model": 8,
        "vocab_size": 5,
        "dtype": "bfloat16",
        "weights": weights,
        "weights_hash": hash_json(weights),
        "config_hash": hash_file(local / "config.json"),
        "tokenizer_hash": facts["tokenizer_hash"],
        "template_hash": hash_json(TEMPLATE),
    }


def test_hashes_follow_content_and_nothing_else(tmp_path: Path, local: Path) -> None:
    first = make(tmp_path, str(local))
    twin = make(tmp_path, str(write_model(tmp_path / "twin")))
    other = make(tmp_path, str(write_model(tmp_path / "other", seed=1)))
    assert {**twin, "source": ""} == {**first, "source": ""}
    assert other["weights_hash"] != first["weights_hash"]
    assert other["tokenizer_hash"] == first["tokenizer_hash"]


def test_a_zoo_source_uses_the_trained_folder(tmp_path: Path, local: Path, out: Path) -> None:
    facts = make(tmp_path, "zoo:llama/base", made=local)
    assert (facts["source"], facts["revision"]) == ("zoo:llama/base", None)
    assert (out / "model.safetensors").readlink() == local / "model.safetensors"
    with pytest.raises(UserError, match="not given"):
        make(tmp_path, "zoo:llama/base")


def test_a_hub_source_records_its_commit(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repo = tmp_path / "hf/hub/models--org--name"
    blob = write_model(repo / "blobs") / "model.safetensors"
    snapshot = write_model(repo / "snapshots" / COMMIT)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/model.safetensors")
    (repo / "refs").mkdir()
    (repo / "refs/v1").write_text(COMMIT)
    assert make(tmp_path, "org/name@v1")["revision"] == COMMIT
    assert (out / "model.safetensors").readlink() == blob
    with pytest.raises(UserError, match="not in the cache"):
        make(tmp_path, "org/name@v2")


def test_shards_come_from_the_index(tmp_path: Path, out: Path) -> None:
    folder = write_model(tmp_path / "sharded", shards=3)
    save_file({"x": np.zeros(1)}, folder / "consolidated.safetensors")
    facts = make(tmp_path, str(folder))
    assert list(facts["weights"]) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert not (out / "consolidated.safetensors").exists()
    assert (out / "model.safetensors.index.json").is_symlink()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "sharded", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing"):
        make(tmp_path, str(folder))


def test_weights_cut_off_are_named(tmp_path: Path, local: Path, out: Path) -> None:
    path = local / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"model\.safetensors is cut off: it has"):
        make(tmp_path, str(local))
    assert not out.exists()


def test_pickled_weights_are_refused(tmp_path: Path, local: Path) -> None:
    (local / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights only as pytorch_model\.bin; pickled"):
        make(tmp_path, str(local))
    (local / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        make(tmp_path, str(local))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"index\.json is not valid JSON"),
        ("{}", r"index\.json has no weight_map"),
        ('{"weight_map": []}', r"index\.json has no weight_map"),
        (POINTER, r"index\.json is a Git LFS pointer"),
    ],
)
def test_an_unreadable_index_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = write_model(tmp_path / "sharded", shards=2)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=message):
        make(tmp_path, str(folder))


def test_an_index_may_not_leave_its_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "sharded", shards=2)
    index = {"weight_map": {"a": "../local/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside its folder"):
        make(tmp_path, str(folder))


def test_other_architectures_and_adapters_are_refused(tmp_path: Path, local: Path) -> None:
    (local / "config.json").write_text(json.dumps({**CONFIG, "model_type": "t5"}))
    with pytest.raises(UserError, match=r"'t5'.*supported: llama, gemma2"):
        make(tmp_path, str(local))
    (local / "model.safetensors").rename(local / "adapter_model.safetensors")
    (local / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds an adapter .*: write lora:"):
        make(tmp_path, str(local))


def test_what_is_left_of_an_adapter_beside_its_merged_model(tmp_path: Path, local: Path) -> None:
    (local / "adapter_config.json").write_text("{}")
    make(tmp_path, str(local))
    assert not (tmp_path / "results/r/checkpoints/p.base/adapter_config.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text(POINTER), r"is a Git LFS pointer, .*git lfs pull"),
        (lambda path: path.write_bytes(b"GGUF\3\0"), "is a GGUF file"),
        (
            lambda path: path.rename(path.with_name("model-00001-of-00001.safetensors")),
            r"has model-00001-of-00001\.safetensors and neither .*: name one file model\.safetens",
        ),
    ],
)
def test_what_lies_in_place_of_the_weights(
    tmp_path: Path, local: Path, change: Callable[[Path], object], message: str
) -> None:
    change(local / "model.safetensors")
    with pytest.raises(UserError, match=message):
        make(tmp_path, str(local))


def test_a_slow_tokenizer_alone_is_told_how_to_become_a_fast_one(
    tmp_path: Path, local: Path
) -> None:
    (local / "tokenizer.json").rename(local / "vocab.json")
    with pytest.raises(UserError, match=r"only as vocab\.json .*save_pretrained\(folder\)"):
        make(tmp_path, str(local))


def test_missing_parts_are_named(tmp_path: Path, local: Path) -> None:
    (local / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        make(tmp_path, str(local))
    (local / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        make(tmp_path, str(local))
    with pytest.raises(UserError, match="does not exist"):
        make(tmp_path, str(tmp_path / "nowhere"))


def test_a_failure_leaves_the_older_checkpoint(tmp_path: Path, local: Path, out: Path) -> None:
    make(tmp_path, str(local))
    with pytest.raises(UserError, match="does not exist"):
        make(tmp_path, "./nowhere")
    assert check_manifest(out, deep=True) == []


def test_template_hash(local: Path) -> None:
    assert template_hash(local) == hash_json(TEMPLATE)
    (local / "chat_template.jinja").write_text("other")
    assert template_hash(local) == hash_json("other")
    (local / "chat_template.jinja").unlink()
    (local / "tokenizer_config.json").write_text("{}")
    assert template_hash(local) is None


def test_a_stamp_saves_the_second_hash_until_the_file_changes(tmp_path: Path) -> None:
    path, stamps = tmp_path / "w", tmp_path / "stamps"
    path.write_bytes(b"one")
    digest = stamped_hash(path, stamps)
    (stamp,) = stamps.iterdir()
    stamp.write_text(stamp.read_text().replace(digest, "remembered"))
    assert stamped_hash(path, stamps) == "remembered"
    os.utime(path, ns=(0, 0))
    assert stamped_hash(path, stamps) == digest
    path.write_bytes(b"two!")
    assert stamped_hash(path, stamps) == hash_file(path)
    # As a machine that lost its power leaves a file.
    (stamp,) = stamps.iterdir()
    stamp.write_bytes(b"\0" * 40)
    assert stamped_hash(path, stamps) == hash_file(path)


def test_the_stage_starts_without_torch() -> None:
    code = (
        "import sys; from actshift.stages.checkpoint import make_checkpoint; "
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
