"""Rank audit of one pair: activation stores and prompt sets in, a folder of tables out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.store import ActivationStore
from actshift.io.tables import write_table
from actshift.prompts.records import read_prompts
from actshift.studies.rank_audit.audit import audit_pair
from actshift.studies.rank_audit.inputs import StreamReader
from actshift.studies.rank_audit.settings import RankAuditSettings
from actshift.vocab import Role, Template


class FolderStores:
    """The stores of one pair, found by their folders `<pair>.<role>/<prompt set>.<template>`."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Index the folders by role, prompt set and template."""
        self._folders: dict[tuple[str, str, str], Path] = {}
        for folder in folders:
            prompt_set, _, template = folder.name.rpartition(".")
            role = folder.parent.name.rpartition(".")[2]
            self._folders[role, prompt_set, template] = folder

    def open(self, role: Role, prompt_set: str, template: Template) -> StreamReader:
        """Open one stream.

        Raises:
            UserError: The stream was not handed to this job.
            StoreError: The store is incomplete or damaged.
        """
        folder = self._folders.get((role, prompt_set, template))
        if folder is None:
            raise UserError(
                f"rank_audit: no store of {role} {prompt_set}.{template}; "
                "the rule must list it as an input"
            )
        # The type checker does not take a cached_property for a property.
        return cast(StreamReader, ActivationStore.open(folder))


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
