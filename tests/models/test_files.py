"""What lies in a model folder: real files of every kind, and what is said of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from actshift.errors import UserError
from actshift.models.files import (
    folder_shapes,
    is_gguf,
    is_lfs_pointer,
    pickled_weights,
    read_json,
    safetensors_names,
    tensor_shapes,
)

LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"


def save(path: Path, **shapes: tuple[int, ...]) -> Path:
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_shapes_are_those_of_the_header(tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors", a=(3, 4), b=(2,))
    assert tensor_shapes(path) == folder_shapes(tmp_path) == {"a": (3, 4), "b": (2,)}


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    save(tmp_path / "one.safetensors", a=(3, 4))
    save(tmp_path / "two.safetensors", b=(2,))
    save(tmp_path / "stray.safetensors", c=(9,))
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert folder_shapes(tmp_path) == {"a": (3, 4), "b": (2,)}
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(UserError, match=r"two\.safetensors is missing, model\.safetensors\.index"):
        folder_shapes(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "not valid JSON"),
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
        (LFS, "Git LFS pointer"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, index: str, said: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=said):
        safetensors_names(tmp_path)


def test_a_cut_off_file_says_how_much_is_there(tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors", a=(30, 40))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=rf"cut off: it has {len(whole) - 100:,} bytes of"):
        tensor_shapes(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no safetensors file"),
        (b"\0" * 7, "no safetensors file"),
        (b"\xff" * 64, "header is longer than the file"),
        (b"\x02\0\0\0\0\0\0\0[]", "no safetensors file"),
        (b"\x09\0\0\0\0\0\0\0" + b'{"a": {}}', "no safetensors file"),
        (LFS.encode(), "Git LFS pointer, not the file itself: run `git lfs pull`"),
        (b"GGUF" + b"\0" * 60, "GGUF file, which is not read"),
    ],
)
def test_another_file_is_called_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        tensor_shapes(path)
    assert str(path) in str(caught.value)


def test_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(LFS)
    (tmp_path / "b.gguf").write_text("")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pth"):
        (tmp_path / name).touch()
    assert is_lfs_pointer(tmp_path / "a.json")
    assert not is_lfs_pointer(tmp_path / "b.gguf")
    assert is_gguf(tmp_path / "b.gguf")
    assert not is_gguf(tmp_path)
    assert [path.name for path in pickled_weights(tmp_path)] == ["model.pth", "pytorch_model.bin"]
    with pytest.raises(UserError, match="Git LFS pointer"):
        read_json(tmp_path / "a.json")


def test_a_file_that_the_disk_does_not_give_is_one_line(tmp_path: Path) -> None:
    # A regular file that no process can read from its start: as on a disk that fails.
    (tmp_path / "a.json").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"a\.json: Input/output error; the disk") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
