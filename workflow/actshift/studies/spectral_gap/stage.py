"""Spectral gap of one pair: activation stores in, one table out (torch-free)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from actshift.engine.prompt_rows import fit_and_heldout
from actshift.engine.stores import StreamReader
from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.missed import Missed, first_missed, mark_missed, missed_in
from actshift.io.store import ActivationStore
from actshift.io.tables import write_table
from actshift.prompts.records import read_prompts
from actshift.studies.spectral_gap.tables import gap_table
from actshift.vocab import ROLES

#: File of a pair's folder.
TABLE = "spectral_gap.csv"


def spectral_gap_of_pair(
    *,
    pair: str,
    stores: Sequence[Path],
    prompts: Mapping[str, Path],
    eps: float,
    draws: int,
    seed: int,
    out: Path,
) -> str:
    """Write the table of one pair, on the prompts that the rank audit fits.

    Args:
        pair: Name of the pair.
        stores: Folders `<pair>.<role or reference>/<prompt set>.<template>` of the harmful prompts.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        eps: Share of the energy that the rank leaves out.
        draws: Half-samples by cluster.
        seed: Of the half-samples.
        out: Folder of the table; it appears whole or not at all.

    Returns:
        One line for the log. A reference that missed its gate is left out.

    Raises:
        UserError: A store is missing or damaged, or does not fit the others.
    """
    by_role = {folder.parent.name.rpartition(".")[2]: folder for folder in stores}
    missed = unusable(by_role)
    if missed is not None:
        mark_missed(out, missed)
        return f"{pair}: {missed.status}"
    rows = {path.stem: read_prompts(path) for path in prompts.values()}
    sets = {condition: path.stem for condition, path in prompts.items()}
    fitted, _ = fit_and_heldout(rows, sets, fit=("fit",), heldout=("heldout",))
    # The type checker does not take a cached_property for a property.
    readers = {
        role: cast(StreamReader, ActivationStore.open(folder))
        for role, folder in by_role.items()
        if missed_in(folder) is None
    }
    missing = [role for role in ROLES if role not in readers]
    if missing or len(readers) < 3:
        raise UserError(
            f"spectral_gap: {pair} has no store of {missing[0] if missing else 'a reference'}; "
            "the rule must list it as an input"
        )
    table = gap_table(
        readers,
        fitted["harmful"],
        pair=pair,
        eps=eps,
        draws=draws,
        seed=seed,
    )
    with publishing(out) as partial:
        partial.mkdir(parents=True, exist_ok=True)
        write_table(table, partial / TABLE)
    return f"{pair}: {TABLE}, {len(table)} rows"


def unusable(by_role: Mapping[str, Path]) -> Missed | None:
    """The missed gate that leaves a pair nothing to compare, None where something is left.

    Args:
        by_role: Folders of the pair's two models and of its references.
    """
    of_pair = first_missed(folder for role, folder in by_role.items() if role in ROLES)
    references = [folder for role, folder in by_role.items() if role not in ROLES]
    if of_pair is not None or not references:
        return of_pair
    if any(missed_in(folder) is None for folder in references):
        return None
    return first_missed(references)
