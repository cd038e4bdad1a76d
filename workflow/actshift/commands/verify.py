"""`actshift inspect` and `verify`: what an artifact holds, whether it is whole, what is damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actshift.errors import StoreError, UserError
from actshift.io.atomic import hash_file
from actshift.io.manifest import NAME, read_manifest
from actshift.io.missed import missed_in
from actshift.io.store import ActivationStore, layer_norms, verify_folder
from actshift.io.tables import table_damage
from actshift.io.writer import ARRAYS
from actshift.vocab import STORE_DIMS


def inspect_store(path: Path, *, layer: int | None, as_json: bool) -> None:
    """Print dims, coordinates, provenance and norms of a store, or one JSON object.

    `path` is the stream's folder, or `acts.zarr` inside it. With a `layer` (0-based block) norms
    are by position, else by layer.

    Raises:
        StoreError: no store there, it is damaged, or it has no such layer.
    """
    store = ActivationStore.open(store_folder(path))
    facts = describe(store, layer=layer)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _show(facts)


def store_folder(path: Path) -> Path:
    """The folder of a stream, also when its `acts.zarr` was named.

    Raises:
        StoreError: nothing is there.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such file or folder")
    return path.resolve().parent if path.name == ARRAYS else path


def describe(store: ActivationStore, *, layer: int | None) -> dict[str, Any]:
    """What a store holds, as plain JSON values.

    Keys are `store`, `dims` (axis -> length), `dtype`, `coords`, `attrs`, `manifest` (its facts),
    and `layer_norms` (layer -> mean L2 norm of valid rows) or `layer` and `position_norms`.
    """
    acts = store.array("resid_post")
    facts = {
        "store": str(store.folder),
        "dims": dict(zip(STORE_DIMS, acts.shape, strict=True)),
        "dtype": str(acts.dtype),
        "chunks": list(acts.chunks),
        "coords": _coords(store),
        "attrs": store.attrs,
        "manifest": store.manifest["facts"],
    }
    if layer is not None:
        return {**facts, "layer": layer, "position_norms": _position_norms(store, layer)}
    layers = [int(number) for number in store.layers]
    return {**facts, "layer_norms": dict(zip(layers, layer_norms(store).tolist(), strict=True))}


def _coords(store: ActivationStore) -> dict[str, Any]:
    tokens, ids = store.n_tokens, store.prompt_ids
    return {
        "layer": _span(store.layers),
        "position": _span(store.positions),
        "prompt_id": f"{len(ids)}: {ids[0]} ... {ids[-1]}",
        "n_tokens": f"{tokens.min()} to {tokens.max()}, median {np.median(tokens):g}",
        "valid": f"{int(store.valid.sum())} of {store.valid.size} rows",
    }


def _span(labels: np.ndarray) -> str:
    return f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else str(labels[0])


def _position_norms(store: ActivationStore, layer: int) -> dict[int, dict[str, int | float]]:
    """L2 norms of one layer's valid rows, by position."""
    by_position: dict[int, dict[str, int | float]] = {}
    for position in (int(number) for number in store.positions):
        values, valid = store.read_window(layer, [position])
        norms = np.linalg.norm(values[valid].astype(np.float64), axis=-1)
        if norms.size:
            by_position[position] = {
                "rows": int(norms.size),
                "mean": float(norms.mean()),
                "min": float(norms.min()),
                "max": float(norms.max()),
            }
    return by_position


def _show(facts: dict[str, Any]) -> None:
    console = Console()
    dims = ", ".join(f"{name} {size}" for name, size in facts["dims"].items())
    console.print(facts["store"], style="bold", markup=False, soft_wrap=True)
    console.print(f"resid_post: {dims}; {facts['dtype']}; chunks {facts['chunks']}", markup=False)
    _pairs(console, "coordinates", facts["coords"])
    _pairs(console, "provenance", {**facts["attrs"], **facts["manifest"]})
    if "layer" in facts:
        title = f"norm of layer {facts['layer']} by position"
        table = Table("position", "rows", "mean", "min", "max", title=title, title_justify="left")
        for position, row in facts["position_norms"].items():
            norms = (f"{row[key]:.6g}" for key in ("mean", "min", "max"))
            table.add_row(str(position), str(row["rows"]), *norms)
    else:
        table = Table("layer", "mean norm", title="norm by layer", title_justify="left")
        for layer, norm in facts["layer_norms"].items():
            table.add_row(str(layer), f"{norm:.6g}")
    console.print(table)


def _pairs(console: Console, title: str, values: dict[str, Any]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # Text, not str: a bracket in a value is no markup.
        table.add_row(key, Text(text))
    console.print(table)


#: Folders of a run whose members, at this depth, are artifacts with a manifest.
ARTIFACTS = ("checkpoints/*", "zoo/*/*", "pairs/*/abliterated", "merged/*", "activations/*/*")


def verify_path(path: Path, *, deep: bool) -> bool:
    """Check an artifact folder or all artifacts and tables of a run, and print one line each.

    A folder that stands for a missed gate is not damaged; its line says which gate. `deep` also
    hashes the weights of checkpoints again. Returns True when nothing is wrong.

    Raises:
        UserError: nothing to verify there.
    """
    console = Console(soft_wrap=True, highlight=False)
    well = True
    checked: list[tuple[Path, list[str]]] = []
    for folder in artifacts(path):
        # A marker stands in place of an artifact.
        missed = None if (folder / NAME).is_file() else missed_in(folder)
        if missed is None:
            checked.append((folder, _problems(folder, deep=deep)))
        else:
            console.print(f"{missed.status} {folder}", markup=False, emoji=False)
    tables = sorted(path.glob("tables/**/*.csv")) + sorted(path.glob("pairs/**/*.csv"))
    if tables:
        damage = [line for table in tables for line in table_damage(table)]
        checked.append((path / "tables", damage))
    for folder, problems in checked:
        well = well and not problems
        console.print("damaged" if problems else "whole", folder, markup=False, emoji=False)
        for line in problems:
            console.print(f"  {line}", markup=False, emoji=False)
    return well


def artifacts(path: Path) -> list[Path]:
    """The artifact folders that a path stands for; none is a UserError."""
    folder = store_folder(path)
    if not folder.is_dir():
        raise UserError(f"{path}: expected a store, a checkpoint folder or results/<run>")
    if (folder / NAME).is_file() or (folder / ARRAYS).is_dir() or missed_in(folder) is not None:
        return [folder]
    folders = (path for pattern in ARTIFACTS for path in folder.glob(pattern) if path.is_dir())
    members = sorted(path for path in folders if not path.name.startswith("."))
    if not members:
        raise UserError(
            f"{path}: no {NAME} and no checkpoints, zoo or activations below it; "
            "expected a store, a checkpoint folder or results/<run>"
        )
    return members


def _problems(folder: Path, *, deep: bool) -> list[str]:
    """One line for everything wrong with an artifact folder; empty when all is well."""
    try:
        damage = verify_folder(folder)
        if deep and not damage:
            weights = read_manifest(folder)["facts"].get("weights", {})
            return [
                f"{folder / name}: content differs from its sha256 in the manifest"
                for name, digest in weights.items()
                if hash_file(folder / name) != digest
            ]
        return damage
    except UserError as error:
        return [str(error)]
