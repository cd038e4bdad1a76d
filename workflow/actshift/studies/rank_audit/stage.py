"""Rank audit of one pair: activation stores and prompt sets in, a folder of tables out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actshift.engine.stores import FolderStores
from actshift.io.atomic import publishing
from actshift.io.tables import write_table
from actshift.prompts.records import read_prompts
from actshift.studies.rank_audit.audit import audit_pair
from actshift.studies.rank_audit.settings import RankAuditSettings


def rank_audit(
    *,
    pair: str,
    stores: Sequence[Path],
    prompts: Sequence[Path],
    settings: Mapping[str, Any],
    seed: int,
    out: Path,
) -> list[str]:
    """Write the tables of one pair.

    Args:
        pair: Name of the pair.
        stores: Folders of its activation stores.
        prompts: Prompt sets, `<name>.jsonl`.
        settings: Fields of `RankAuditSettings`, lists allowed for tuples.
        seed: Seed of every draw.
        out: Folder of the tables; it appears whole or not at all.

    Returns:
        One line a table, for the log.

    Raises:
        UserError: Prompts, stores and settings do not fit together.
    """
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    sets = {path.stem: read_prompts(path) for path in prompts}
    chosen = RankAuditSettings(**values, seed=seed)
    tables = audit_pair(FolderStores(stores), sets, chosen, pair=pair)
    with publishing(out) as partial:
        partial.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            write_table(table, partial / f"{name}.csv")
    return [f"{pair}: {name}.csv, {len(table)} rows" for name, table in tables.items()]
