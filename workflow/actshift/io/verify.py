"""Looking through a whole store: every byte that has a checksum, and NaN in rows that exist."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from actshift.errors import StoreError, UserError
from actshift.io.arrays import ARRAYS, ROW_DIMS, WINDOWED, chunk_regions, damaged_chunks
from actshift.io.manifest import check_manifest
from actshift.io.store import ActivationStore


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
        # Not openable as it stands; the chunks that are there can still be judged.
        return problems + _damage_of_unopenable(folder)
    for name in (*ROW_DIMS, *WINDOWED):
        problems += [f"{folder}: {line}" for line in damaged_chunks(store.array(name))]
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


def _damage_of_unopenable(folder: Path) -> list[str]:
    damage: list[str] = []
    try:
        store = ActivationStore(folder, {})
        for name in (*ROW_DIMS, *WINDOWED):
            damage += [f"{folder}: {line}" for line in damaged_chunks(store.array(name))]
    except (UserError, ValueError, OSError, KeyError):
        # The metadata itself is gone, and the manifest check has said so.
        return damage
    return damage


def _not_finite(store: ActivationStore) -> list[str]:
    """List chunks with NaN or inf in rows that exist: never written, or written wrong."""
    damage: list[str] = []
    for array in (store.array(name) for name in WINDOWED):
        for name, region in chunk_regions(array):
            valid = store.valid[:, region[-2]]
            values = np.asarray(array[region]).reshape(*valid.shape, -1)
            bad = valid & ~np.isfinite(values).all(axis=-1)
            if bad.any():
                row = (region[-2].start or 0) + int(np.argwhere(bad)[0, 1])
                prompt = store.prompt_ids[row]
                line = f"{ARRAYS}/{name} holds NaN or inf in a valid row (prompt '{prompt}')"
                damage.append(f"{store.folder}: {line}")
    return damage
