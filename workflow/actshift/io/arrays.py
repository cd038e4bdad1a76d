"""The zarr arrays of an activation store: names, dimensions, codecs, and their chunks on disk."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from actshift.errors import StoreError, refusal_of
from actshift.io.layout import Layout
from actshift.vocab import STORE_DIMS

ARRAYS = "acts.zarr"
#: Dimensions of the small arrays; each is one chunk.
ROW_DIMS: dict[str, tuple[str, ...]] = {
    "layer": ("layer",),
    "position": ("position",),
    "prompt_id": ("prompt",),
    "n_tokens": ("prompt",),
    "batch": ("prompt",),
    "batch_row": ("prompt",),
    "valid": ("position", "prompt"),
    "token_id": ("position", "prompt"),
    "is_special": ("position", "prompt"),
    "token_index": ("position", "prompt"),
}
#: The arrays that are cut into windows of prompts.
WINDOWED = ("resid_post", "final_norm")

# Without write_empty_chunks an all-NaN chunk would look like one that was never written.
_CODECS: dict[str, Any] = {
    "compressors": [Crc32cCodec()],
    "config": {"write_empty_chunks": True},
}


def create_windowed(group: zarr.Group, layout: Layout, dtype: str) -> None:
    """Create `resid_post` and `final_norm`, filled with NaN until written."""
    size = layout
    p, n, d, c, w = size.positions, size.prompts, size.d_model, size.chunk, size.window
    shapes = {
        "resid_post": ((size.layers, p, n, d), (1, p, c, d), (size.layers, p, w, d)),
        "final_norm": ((p, n, d), (p, c, d), (p, w, d)),
    }
    for name, (shape, chunks, shards) in shapes.items():
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            shards=shards,
            dtype=dtype,
            fill_value=np.nan,
            dimension_names=STORE_DIMS[-len(shape) :],
            **_CODECS,
        )


def create_rows(group: zarr.Group, rows: dict[str, np.ndarray]) -> None:
    """Create and write the small arrays; their dimensions are those of `ROW_DIMS`."""
    for name, values in rows.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=ROW_DIMS[name],
            **_CODECS,
        )
        array[...] = values


def member(group: zarr.Group, name: str) -> zarr.Array:
    """Return an array of a store by name.

    Raises:
        StoreError: There is none.
    """
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: has no array '{name}'; it is not an actshift store")
    return array


def chunk_regions(array: zarr.Array) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield (file and chunk, region) of every chunk of an array.

    The name is `<array>/c/<shard> chunk <index>`, where index counts chunks over the array.
    """
    outer = array.shards or array.chunks
    for index in np.ndindex(*(-(-s // c) for s, c in zip(array.shape, array.chunks, strict=True))):
        region = tuple(
            slice(i * c, min((i + 1) * c, s))
            for i, c, s in zip(index, array.chunks, array.shape, strict=True)
        )
        shard = "/".join(str(part.start // o) for part, o in zip(region, outer, strict=True))
        name = f"{array.basename}/c/{shard} chunk {','.join(map(str, index))}"
        yield name, region


def read_region(array: zarr.Array, region: tuple[Any, ...], folder: object) -> np.ndarray:
    """Read a region; damage is reported by the exact chunk.

    Raises:
        StoreError: A chunk's checksum does not fit or its file cannot be decoded, or the file
            system refuses to read it, which is no damage.
    """
    try:
        return np.asarray(array[region])
    except Exception as error:
        refused = refusal_of(error, folder)
        if refused is not None:
            raise StoreError(refused) from error
        damaged = damaged_chunks(array)
        what = damaged[0] if damaged else f"{array.basename} ({error})"
        raise StoreError(f"{folder}: {what}; extract this stream again") from error


def damaged_chunks(array: zarr.Array) -> list[str]:
    """Read every chunk of an array and describe those that cannot be read."""
    damaged: list[str] = []
    for name, region in chunk_regions(array):
        try:
            array[region]
        # zarr and numcodecs each raise their own; any of them is damage here.
        except Exception as error:
            refused = refusal_of(error)
            if refused is not None:
                damaged.append(f"{ARRAYS}/{name} cannot be read ({refused})")
                continue
            reason = " ".join(str(error).split())[:120]
            damaged.append(f"{ARRAYS}/{name} is damaged ({reason})")
    return damaged
