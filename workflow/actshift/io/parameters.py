"""Number of parameters of a checkpoint folder, read from the headers of its safetensors files."""

import json
import re
from math import prod
from pathlib import Path

#: Tensors that old checkpoints store beside the parameters: GPT-2's causal masks, rotary tables.
_BUFFERS = re.compile(r"(^|\.)(attn\.(masked_)?bias|rotary_emb\.inv_freq|position_ids)$")
#: A header says its own length in the first bytes of the file.
_LENGTH_BYTES = 8
#: The format's own limit; a longer header is damage.
_LONGEST = 100_000_000


def count_parameters(folder: Path) -> int | None:
    """Count the stored parameters of a checkpoint; tied matrices count once.

    Returns None where it cannot be read: no weights there, links into a folder that is gone, or
    weights packed several to a number (4-bit formats).
    """
    files = sorted(folder.glob("*.safetensors"))
    try:
        shapes = [shape for file in files for shape in _shapes(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    floats = sum(size for size, kind in shapes if kind.startswith(("F", "BF")))
    others = sum(size for size, _ in shapes) - floats
    return floats if floats and others < floats / 100 else None


def _shapes(file: Path) -> list[tuple[int, str]]:
    """Size and dtype (`F32`, `BF16`, `U8`) of each parameter of a file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > _LONGEST:
            raise ValueError(f"{file}: no safetensors file")
        header = json.loads(stream.read(length))
    return [
        (prod(entry["shape"]), entry["dtype"])
        for name, entry in header.items()
        if name != "__metadata__" and not _BUFFERS.search(name)
    ]
