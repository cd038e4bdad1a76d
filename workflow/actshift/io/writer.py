"""Writing an activation store window by window, so that a killed writer resumes at a whole one."""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int
from zarr.codecs import Crc32cCodec
from zarr.errors import ZarrUserWarning

from actshift.errors import StoreError, refusal_of
from actshift.io.atomic import atomic_write_text, canonical_json, hash_bytes, hash_json
from actshift.io.layout import Layout
from actshift.io.manifest import write_manifest
from actshift.vocab import STORE_DIMS, STORE_SCHEMA

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
KIND = "activations"
#: Says, beside `acts.zarr` in the staging folder, that all but the windows is written.
_READY = "ready.json"
# Without write_empty_chunks an all-NaN chunk would look like one that was never written.
_CODECS: dict[str, Any] = {
    "compressors": [Crc32cCodec()],
    "config": {"write_empty_chunks": True},
}


@dataclass(frozen=True)
class StoreRows:
    """What is known of every stored row before any forward pass.

    Absent rows (a prompt shorter than the position rule asks) have valid = False and
    token_id = token_index = -1.
    """

    prompt_ids: list[str]
    n_tokens: Int[np.ndarray, " prompt"]
    valid: Bool[np.ndarray, "position prompt"]
    token_id: Int[np.ndarray, "position prompt"]
    is_special: Bool[np.ndarray, "position prompt"]
    token_index: Int[np.ndarray, "position prompt"]
    batch: Int[np.ndarray, " prompt"]
    """Number of the batch, in the order they ran."""
    batch_row: Int[np.ndarray, " prompt"]
    """Row inside its batch."""


class StoreWriter:
    """Writes one store into a staging folder; `finish` makes it a complete artifact there."""

    def __init__(
        self,
        staging: Path,
        layout: Layout,
        rows: StoreRows,
        *,
        attrs: Mapping[str, Any],
        dtype: Literal["float32", "float16"] = "float32",
    ) -> None:
        """Open a staging folder; whole windows of an equal, interrupted writer are kept.

        `attrs` are JSON-able provenance, put on the group; float16 halves the disk and refuses
        overflow.
        """
        self.staging = staging
        self.layout = layout
        self.rows = rows
        self.dtype = dtype
        self._arrays = _open(staging, layout, rows, attrs=attrs, dtype=dtype)

    def missing(self) -> list[int]:
        """Return the windows still to write, ascending.

        Stray partial files are swept. A kill can only hurt what was written last, so the last
        whole window is read once and, if its checksums fail, written again.
        """
        for stray in self.staging.rglob("*.partial"):
            stray.unlink()
        whole = [w for w in range(self.layout.windows) if self._is_whole(w)]
        if whole and not self._is_sound(whole[-1]):
            whole.pop()
        return sorted(set(range(self.layout.windows)) - set(whole))

    def write(
        self,
        window: int,
        *,
        resid_post: Float[np.ndarray, "layer position row d_model"],
        final_norm: Float[np.ndarray, "position row d_model"],
        model: str,
    ) -> None:
        """Check and write one whole window.

        Activations are float32: the output of every block, before the final norm, and that of the
        final norm. `model` is named in messages.

        Raises:
            StoreError: A valid row holds NaN or inf, or does not fit float16; names model,
                prompt and layer. Or the disk is full.
        """
        start, stop = self.layout.span(window)
        values = {"resid_post": resid_post, "final_norm": final_norm}
        for block in values.values():
            self._check(block, start, model=model)
        for name in WINDOWED:
            self._arrays[name][..., start:stop, :] = values[name].astype(self.dtype)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Consolidate the metadata and write the manifest; the staging folder is then whole."""
        (self.staging / _READY).unlink(missing_ok=True)
        with warnings.catch_warnings():
            # The reader needs no other file for it, and xarray warns where it is absent.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(str(self.staging / ARRAYS), zarr_format=3)
        write_manifest(self.staging, kind=KIND, facts=facts)

    def _shard(self, name: str, window: int) -> Path:
        array = self._arrays[name]
        zeros = ["0"] * (array.ndim - 2)
        return self.staging / ARRAYS / name / "c" / Path(*zeros, str(window), "0")

    def _is_whole(self, window: int) -> bool:
        return all(self._shard(name, window).is_file() for name in WINDOWED)

    def _is_sound(self, window: int) -> bool:
        start, stop = self.layout.span(window)
        try:
            for name in WINDOWED:
                self._arrays[name][..., start:stop, :]
        # Whatever the decoder raises, the remedy is the same: drop the window and write it again.
        # A file that the system does not let us read may be whole.
        except Exception as error:
            if refusal_of(error) is not None:
                raise
            for name in WINDOWED:
                self._shard(name, window).unlink()
            return False
        return True

    def _check(self, block: Float[np.ndarray, "..."], start: int, *, model: str) -> None:
        """Refuse NaN, inf and float16 overflow in valid rows of one window."""
        limit = float(np.finfo(self.dtype).max)
        valid = self.rows.valid[:, start : start + block.shape[-2], None]
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(block) <= limit) & valid
        if not bad.any():
            return
        # argwhere is in C order, so the first layer at which it happened comes first.
        first = np.argwhere(bad)[0]
        value = float(block[tuple(first)])
        layer = f"layer {first[0]}" if block.ndim == 4 else "the final norm"
        prompt = self.rows.prompt_ids[start + int(first[-2])]
        remedy = (
            "it does not fit float16; set storage: float32"
            if np.isfinite(value)
            else "check the weights, or run the forward pass in a wider dtype"
        )
        raise StoreError(
            f"{model}: prompt '{prompt}', {layer}: the activation is {value:g}; {remedy}"
        )


def member(group: zarr.Group, name: str) -> zarr.Array:
    """Return an array of a store by name.

    Raises:
        StoreError: There is none.
    """
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.store_path}: has no array '{name}'; it is not an actshift store")
    return array


def _open(
    staging: Path, layout: Layout, rows: StoreRows, *, attrs: Mapping[str, Any], dtype: str
) -> dict[str, zarr.Array]:
    """Open the staging folder of an equal writer, or start it anew."""
    small = _small_arrays(layout, rows)
    plan = {
        "attrs": dict(attrs),
        "layout": [getattr(layout, name) for name in Layout.__slots__],
        "dtype": dtype,
        "rows": {name: hash_bytes(_bytes(values)) for name, values in small.items()},
    }
    ready = staging / _READY
    if not (ready.is_file() and json.loads(ready.read_text()) == hash_json(plan)):
        shutil.rmtree(staging, ignore_errors=True)
        _create(staging, layout, small, attrs=attrs, dtype=dtype)
        atomic_write_text(ready, canonical_json(hash_json(plan)))
    group = zarr.open_group(str(staging / ARRAYS), mode="r+", zarr_format=3)
    return {
        name: member(group, name).with_config({"write_empty_chunks": True}) for name in WINDOWED
    }


def _create(
    staging: Path,
    layout: Layout,
    small: dict[str, np.ndarray],
    *,
    attrs: Mapping[str, Any],
    dtype: str,
) -> None:
    staging.mkdir(parents=True)
    # CF's "coordinates" attribute is how xarray learns that these two label the prompt axis.
    labels = {"schema": STORE_SCHEMA, "coordinates": "prompt_id n_tokens"}
    group = zarr.open_group(
        str(staging / ARRAYS), mode="w-", zarr_format=3, attributes={**attrs, **labels}
    )
    for name, values in small.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=ROW_DIMS[name],
            **_CODECS,
        )
        array[...] = values
    _create_windowed(group, layout, dtype)


def _create_windowed(group: zarr.Group, layout: Layout, dtype: str) -> None:
    """Create `resid_post` and `final_norm`, filled with NaN until written."""
    p, n, d = layout.positions, layout.prompts, layout.d_model
    c, w = layout.chunk, layout.window
    shapes = {
        "resid_post": ((layout.layers, p, n, d), (1, p, c, d), (layout.layers, p, w, d)),
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


def _small_arrays(layout: Layout, rows: StoreRows) -> dict[str, np.ndarray]:
    return {
        "layer": np.arange(layout.layers, dtype=np.int64),
        "position": np.arange(-layout.positions, 0, dtype=np.int64),
        "prompt_id": np.array(rows.prompt_ids, dtype=np.dtypes.StringDType()),
        "n_tokens": rows.n_tokens.astype(np.int32),
        "batch": rows.batch.astype(np.int32),
        "batch_row": rows.batch_row.astype(np.int32),
        "valid": rows.valid,
        "token_id": rows.token_id.astype(np.int32),
        "is_special": rows.is_special,
        "token_index": rows.token_index.astype(np.int32),
    }


def _bytes(values: np.ndarray) -> bytes:
    if values.dtype.kind == "T":
        return canonical_json(values.tolist()).encode()
    return values.tobytes()
