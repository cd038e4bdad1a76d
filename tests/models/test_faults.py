"""Why a model cannot be read: one line with the cause in its files, and what mends it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from actshift.errors import UserError
from actshift.models.load import load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
Own = Callable[..., Path]


def told(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder, name="m", dtype="float32", device="cpu")
    line = str(caught.value)
    assert line.startswith("m: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (POINTER.encode(), ["is a Git LFS pointer", "git lfs pull"]),
        (b"GGUF\x03\0\0\0", ["is a GGUF file"]),
        (b"\xff" * 40, ["is no safetensors file", "fetch or save it again"]),
    ],
)
def test_what_stands_in_place_of_the_weights(
    own_checkpoint: Own, content: bytes, parts: list[str]
) -> None:
    folder = own_checkpoint()
    (folder / "model.safetensors").write_bytes(content)
    line = told(folder)
    assert all(part in line for part in [*parts, str(folder / "model.safetensors")]), line


def test_weights_cut_off_say_how_much_is_missing(own_checkpoint: Own) -> None:
    path = own_checkpoint() / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert f"is cut off: it has {len(whole) - 100:,} bytes of {len(whole):,}" in told(path.parent)


def test_a_missing_shard_is_named(own_checkpoint: Own) -> None:
    folder = own_checkpoint()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "model-00002-of-00002.safetensors is missing" in told(folder)


def change(folder: Path, **settings: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_sizes_that_do_not_belong_together_are_no_damage(own_checkpoint: Own) -> None:
    line = told(change(own_checkpoint(), intermediate_size=96))
    assert "belong" in line
    assert "again" not in line


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"model_type": "own", "auto_map": {"AutoConfig": "x.X"}}, ["code of its own (auto_map)"]),
        ({"model_type": "own"}, ["cannot use", "own"]),
        ({"hidden_size": "wide"}, ["cannot use", "hidden_size"]),
    ],
)
def test_a_config_that_the_library_refuses_is_quoted(
    own_checkpoint: Own, settings: dict[str, object], parts: list[str]
) -> None:
    line = told(change(own_checkpoint(), **settings))
    assert all(part in line for part in [*parts, "config.json"]), line
    assert "remote code" not in line


def test_a_config_that_is_a_pointer(own_checkpoint: Own) -> None:
    folder = own_checkpoint()
    (folder / "config.json").write_text(POINTER)
    with pytest.raises(UserError, match=r"config\.json is a Git LFS pointer"):
        load_model(folder, name="m", device="cpu")
