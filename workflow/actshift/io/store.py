"""Reading an activation store: complete or refused, labelled, checked as read or as a whole."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int

from actshift.errors import StoreError, UserError, refusal_of
from actshift.io.manifest import check_files, check_manifest, read_manifest
from actshift.io.missed import missed_in
from actshift.io.writer import ARRAYS, KIND, ROW_DIMS, WINDOWED, member
from actshift.vocab import STORE_SCHEMA


class ActivationStore:
    """`resid_post` [layer, position, prompt, d_model] of one stream, with its labels."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Wrap a folder that `open` has found complete."""
        self.folder = folder
        self.manifest = manifest
        self._group = zarr.open_group(str(folder / ARRAYS), mode="r", zarr_format=3)

    @classmethod
    def open(cls, folder: Path) -> "ActivationStore":
        """Open the folder that holds `acts.zarr` and `manifest.json`.

        Every file of the store must be there with its size, and the metadata must carry its
        sha256; chunks carry a crc32c that is checked when they are read.

        Raises:
            StoreError: Something is missing or damaged (names the file), or the store was made
                by a newer version.
        """
        missed = missed_in(folder)
        if missed is not None:
            raise StoreError(
                f"{folder}: {missed.status} ({missed.subject}); it holds no activations"
            )
        if not (folder / ARRAYS).is_dir():
            raise StoreError(f"{folder}: has no {ARRAYS}; expected the folder of a stream")
        _refuse(check_manifest(folder))
        manifest = read_manifest(folder)
        metadata = [name for name in manifest["files"] if name.endswith("zarr.json")]
        _refuse(check_files(folder, metadata))
        if manifest["kind"] != KIND:
            raise StoreError(f"{folder}: is a folder of {manifest['kind']}, not of {KIND}")
        store = cls(folder, manifest)
        if store.attrs.get("schema", 0) > STORE_SCHEMA:
            raise StoreError(
                f"{folder}: has schema {store.attrs['schema']}, this actshift reads up to "
                f"{STORE_SCHEMA}; upgrade actshift"
            )
        return store

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Provenance: model, hashes, dtype, position rule, versions."""
        return dict(self._group.attrs)

    @cached_property
    def layers(self) -> Int[np.ndarray, " layer"]:
        """Layer numbers, 0-based decoder blocks."""
        return self._rows("layer")

    @cached_property
    def positions(self) -> Int[np.ndarray, " position"]:
        """Positions counted from the end; -1 is the last prompt token."""
        return self._rows("position")

    @cached_property
    def prompt_ids(self) -> list[str]:
        """Prompt ids in stored order: UTF-8 length of the text, then id."""
        return [str(name) for name in self._rows("prompt_id")]

    @cached_property
    def n_tokens(self) -> Int[np.ndarray, " prompt"]:
        """Tokens of each prompt, template included."""
        return self._rows("n_tokens")

    @cached_property
    def valid(self) -> Bool[np.ndarray, "position prompt"]:
        """False where a prompt has no such position; those rows are NaN."""
        return self._rows("valid")

    @cached_property
    def token_id(self) -> Int[np.ndarray, "position prompt"]:
        """Token at each stored row; -1 where not valid."""
        return self._rows("token_id")

    @cached_property
    def is_special(self) -> Bool[np.ndarray, "position prompt"]:
        """True for special and template tokens."""
        return self._rows("is_special")

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.array("resid_post").shape[-1]

    def array(self, name: str) -> zarr.Array:
        """Return a raw array of the store, such as `resid_post` or `final_norm`."""
        return member(self._group, name)

    def read(
        self, layer: int, position: int = -1, prompt_ids: Sequence[str] | None = None
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Read one layer at one position (-1 the last prompt token); every row must be valid.

        Rows come in the order of `prompt_ids`, by default all in stored order.

        Returns:
            float32 `[prompt, d_model]`.

        Raises:
            StoreError: Unknown layer, position or prompt; a row that is absent; a damaged chunk.
        """
        values, valid = self.read_window(layer, [position], prompt_ids)
        if not valid.all():
            names = self.prompt_ids if prompt_ids is None else prompt_ids
            first = names[int(np.argmin(valid[0]))]
            raise StoreError(
                f"{self.folder}: prompt '{first}' has no position {position}; "
                "use read_window and its mask"
            )
        return values[0]

    def read_window(
        self, layer: int, positions: Sequence[int], prompt_ids: Sequence[str] | None = None
    ) -> tuple[Float[np.ndarray, "position prompt d_model"], Bool[np.ndarray, "position prompt"]]:
        """Read one layer at several positions, with the mask of rows that exist.

        Rows come in the order of `prompt_ids`, by default all in stored order. Values are float32,
        NaN where the mask is False.

        Raises:
            StoreError: Unknown layer, position or prompt; a damaged chunk; NaN in a valid row.
        """
        at = self._index(self.layers, [layer], "layer")[0]
        where = self._index(self.positions, positions, "position")
        rows = slice(None) if prompt_ids is None else self._prompt_rows(prompt_ids)
        states = _read_region(self.array("resid_post"), (at,), self.folder)
        values = states[where][:, rows].astype(np.float32)
        valid = self.valid[where][:, rows]
        if not np.isfinite(values[valid]).all():
            raise StoreError(
                f"{self.folder}: layer {layer} holds NaN or inf in a valid row, so a chunk was "
                "never written; extract this stream again"
            )
        return values, valid

    def _rows(self, name: str) -> np.ndarray:
        return _read_region(self.array(name), (slice(None),), self.folder)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.prompt_ids)}

    def _prompt_rows(self, prompt_ids: Sequence[str]) -> list[int]:
        unknown = [name for name in prompt_ids if name not in self._row_of]
        if unknown:
            raise StoreError(f"{self.folder}: has no prompt '{unknown[0]}'")
        return [self._row_of[name] for name in prompt_ids]

    def _index(self, labels: np.ndarray, wanted: Sequence[int], what: str) -> list[int]:
        known = {int(label): row for row, label in enumerate(labels)}
        unknown = [label for label in wanted if label not in known]
        if unknown:
            span = f"{labels[0]} to {labels[-1]}"
            raise StoreError(f"{self.folder}: has no {what} {unknown[0]}; it has {span}")
        return [known[label] for label in wanted]


def _chunk_regions(array: zarr.Array) -> Iterator[tuple[str, tuple[slice, ...]]]:
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


def _read_region(array: zarr.Array, region: tuple[Any, ...], folder: object) -> np.ndarray:
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
        damaged = _damaged_chunks(array)
        what = damaged[0] if damaged else f"{array.basename} ({error})"
        raise StoreError(f"{folder}: {what}; extract this stream again") from error


def _damaged_chunks(array: zarr.Array) -> list[str]:
    """Read every chunk of an array and describe those that cannot be read."""
    damaged: list[str] = []
    for name, region in _chunk_regions(array):
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


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}; extract this stream again")


def verify_folder(folder: Path) -> list[str]:
    """Check any artifact folder, an activation store from end to end; one line a problem."""
    if (folder / ARRAYS).is_dir():
        return verify_store(folder)
    return check_manifest(folder, deep=True)


def verify_store(folder: Path) -> list[str]:
    """Check an activation store: files, sha256, crc32c of every chunk, NaN in valid rows.

    Returns one line a problem, naming the exact chunk.
    """
    problems = check_manifest(folder, deep=True)
    try:
        store = ActivationStore.open(folder)
    except StoreError:
        if not problems:
            raise
        # Not openable as it stands; the chunks that are there can still be judged. Where the
        # metadata itself is gone, the manifest check has said so.
        with suppress(UserError, ValueError, OSError, KeyError):
            problems.extend(_damage(ActivationStore(folder, {})))
        return problems
    problems += _damage(store)
    return problems or _not_finite(store)


def layer_norms(store: ActivationStore) -> Float[np.ndarray, " layer"]:
    """Mean L2 norm of each layer's valid rows, float64, in units of the residual stream."""
    positions = [int(position) for position in store.positions]
    norms: list[float] = []
    for layer in store.layers:
        values, valid = store.read_window(int(layer), positions)
        rows = values[valid].astype(np.float64)
        norms.append(float(np.linalg.norm(rows, axis=-1).mean()))
    return np.array(norms)


def _damage(store: ActivationStore) -> Iterator[str]:
    for name in (*ROW_DIMS, *WINDOWED):
        yield from (f"{store.folder}: {line}" for line in _damaged_chunks(store.array(name)))


def _not_finite(store: ActivationStore) -> list[str]:
    """List chunks with NaN or inf in rows that exist: never written, or written wrong."""
    damage: list[str] = []
    for array in (store.array(name) for name in WINDOWED):
        for name, region in _chunk_regions(array):
            valid = store.valid[:, region[-2]]
            values = np.asarray(array[region]).reshape(*valid.shape, -1)
            bad = valid & ~np.isfinite(values).all(axis=-1)
            if bad.any():
                row = (region[-2].start or 0) + int(np.argwhere(bad)[0, 1])
                prompt = store.prompt_ids[row]
                line = f"{ARRAYS}/{name} holds NaN or inf in a valid row (prompt '{prompt}')"
                damage.append(f"{store.folder}: {line}")
    return damage
