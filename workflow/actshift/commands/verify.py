"""`actshift verify`: is every artifact whole, and what exactly is damaged."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from actshift.commands.inspect_store import store_folder
from actshift.errors import UserError
from actshift.io.hashing import hash_file
from actshift.io.manifest import NAME, read_manifest
from actshift.io.missed import Missed, missed_in
from actshift.io.store import verify_folder
from actshift.io.tables import table_damage
from actshift.io.writer import ARRAYS

#: Folders of a run whose members, at this depth, are artifacts with a manifest.
ARTIFACTS = ("checkpoints/*", "zoo/*/*", "pairs/*/abliterated", "merged/*", "activations/*/*")


def verify_path(path: Path, *, deep: bool) -> bool:
    """Check an artifact folder or all artifacts and tables of a run, and print one line each.

    A folder that stands for a missed gate is not damaged; its line says which gate.

    Args:
        path: a store, `acts.zarr`, a checkpoint folder or `results/<run>`.
        deep: also hash the weights of checkpoints again.

    Returns:
        True when nothing is wrong.

    Raises:
        UserError: nothing to verify there.
    """
    console = Console(soft_wrap=True, highlight=False)
    well = True
    checked: list[tuple[Path, list[str]]] = []
    for folder in artifacts(path):
        if (missed := marker_of(folder)) is None:
            checked.append((folder, problems_of(folder, deep=deep)))
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
    """The artifact folders that a path stands for.

    Raises:
        UserError: there are none.
    """
    folder = store_folder(path)
    if not folder.is_dir():
        raise UserError(f"{path}: expected a store, a checkpoint folder or results/<run>")
    if (folder / NAME).is_file() or (folder / ARRAYS).is_dir() or missed_in(folder) is not None:
        return [folder]
    members = sorted(_members(folder))
    if not members:
        raise UserError(
            f"{path}: no {NAME} and no checkpoints, zoo or activations below it; "
            "expected a store, a checkpoint folder or results/<run>"
        )
    return members


def marker_of(folder: Path) -> Missed | None:
    """The missed gate that a folder holds in place of an artifact."""
    return None if (folder / NAME).is_file() else missed_in(folder)


def problems_of(folder: Path, *, deep: bool) -> list[str]:
    """One line for everything wrong with an artifact folder; empty when all is well."""
    try:
        damage = verify_folder(folder)
        return damage + _changed_weights(folder) if deep and not damage else damage
    except UserError as error:
        return [str(error)]


def _members(run: Path) -> Iterator[Path]:
    for pattern in ARTIFACTS:
        members = run.glob(pattern)
        yield from (path for path in members if path.is_dir() and not path.name.startswith("."))


def _changed_weights(folder: Path) -> list[str]:
    """Weights whose content is not what the manifest's facts say."""
    facts = read_manifest(folder)["facts"]
    return [
        f"{folder / name}: content differs from its sha256 in the manifest"
        for name, digest in facts.get("weights", {}).items()
        if hash_file(folder / name) != digest
    ]
