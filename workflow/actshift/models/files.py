"""What lies in a model folder, read from the files' first bytes: no torch, no safetensors library.

The plan reads model folders before any stage runs, and the stages read them again. Both use these
functions, so that one fault has one message.
"""

import json
import re
import struct
from math import prod
from pathlib import Path
from typing import Any

from actshift.errors import UserError, one_line, refusal_of

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
#: Pickles that tools leave beside weights and that hold none.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
_LFS = b"version https://git-lfs"
_GGUF = b"GGUF"
#: No header of a real checkpoint is longer; anything above is no safetensors file.
_LONGEST_HEADER = 100_000_000
#: What reading a damaged header raises.
_NO_HEADER = (ValueError, LookupError, TypeError, AttributeError, struct.error)
#: Tensors that old checkpoints store beside the parameters: GPT-2's causal masks, rotary tables.
_BUFFERS = re.compile(r"(^|\.)(attn\.(masked_)?bias|rotary_emb\.inv_freq|position_ids)$")

Shapes = dict[str, tuple[int, ...]]


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the pointer that Git LFS leaves where the file itself was not fetched."""
    return path.is_file() and _starts(path, _LFS)


def is_gguf(path: Path) -> bool:
    """Whether a file holds weights in llama.cpp's format, by its name or its first bytes."""
    return path.is_file() and (path.suffix.lower() == ".gguf" or _starts(path, _GGUF))


def lfs_message(path: Path) -> str:
    """What to say of a Git LFS pointer."""
    return (
        f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, "
        "or fetch the file from the hub"
    )


def gguf_message(path: Path) -> str:
    """What to say of a GGUF file where a model is expected."""
    return (
        f"{path} is a GGUF file, which is not read: take the model that it was made from, a folder "
        "with config.json and *.safetensors, or its hub id"
    )


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer where the file itself is needed.

    Raises:
        UserError: it is one.
    """
    if is_lfs_pointer(path):
        raise UserError(lfs_message(path))


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf")


def pickled_weights(folder: Path) -> list[Path]:
    """The files of a folder that hold pickled weights, by name."""
    paths = {path for pattern in PICKLED for path in folder.glob(pattern)}
    return sorted(path for path in paths if path.name not in _NO_WEIGHTS)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        UserError: the file is a Git LFS pointer, no JSON, holds no object, or may not be read.
    """
    try:
        refuse_pointer(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch the model again") from None
    except OSError as error:
        raise UserError(refusal_of(error, path) or f"{path}: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: fetch the model again")
    return value


def safetensors_names(folder: Path) -> list[str]:
    """Names of the safetensors files that a loader would open; empty where there are none.

    Raises:
        UserError: the index cannot be read, or names files outside the folder.
    """
    if (folder / SINGLE).is_file():
        return [SINGLE]
    index = folder / INDEX
    if not index.is_file():
        return []
    try:
        names = sorted({str(name) for name in read_json(index)["weight_map"].values()})
    except (KeyError, AttributeError):
        raise UserError(f"{index} has no weight_map: fetch the model again") from None
    if any(Path(name).name != name for name in names):
        raise UserError(f"{index} names files outside its folder: this model is refused")
    return names


def tensor_shapes(path: Path) -> Shapes:
    """Shapes of the tensors of a safetensors file, by name, read from its header alone.

    Raises:
        UserError: the file is a Git LFS pointer or a GGUF file, is cut off, or is no safetensors
            file.
    """
    refuse_pointer(path)
    if is_gguf(path):
        raise UserError(gguf_message(path))
    try:
        start, header = _header(path)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        end = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except _NO_HEADER as error:
        raise UserError(
            f"{path} is no safetensors file ({error}): fetch or save it again"
        ) from None
    size = path.stat().st_size
    if end > size:
        raise UserError(f"{path} is cut off: it has {size:,} bytes of {end:,}; fetch it again")
    return shapes


def folder_shapes(folder: Path) -> Shapes:
    """Shapes of all tensors of a model folder, by name.

    Raises:
        UserError: as `safetensors_names` and `tensor_shapes`, or a shard is missing.
    """
    shapes: Shapes = {}
    for name in safetensors_names(folder):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing, {INDEX} names it: fetch the model again")
        shapes |= tensor_shapes(path)
    return shapes


def count_parameters(folder: Path) -> int | None:
    """Count the stored parameters of a checkpoint; tied matrices count once.

    Returns None where it cannot be read: no weights there, links into a folder that is gone, or
    weights packed several to a number (4-bit formats).
    """
    floats = others = 0
    try:
        for path in sorted(folder.glob("*.safetensors")):
            for name, entry in _header(path)[1].items():
                size = 0 if _BUFFERS.search(name) else prod(entry["shape"])
                is_float = entry["dtype"].startswith(("F", "BF"))
                floats, others = floats + size * is_float, others + size * (not is_float)
    except (OSError, *_NO_HEADER):
        return None
    return floats if floats and others < floats / 100 else None


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a safetensors file starts, and what its header says of each tensor."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(path.stat().st_size, _LONGEST_HEADER):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return 8 + length, header


def _starts(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark
