"""Which edits stand in a figure, by name: each at the coefficient that was chosen for it."""

from collections.abc import Iterator

import pandas as pd

from actshift.report.tables import first, select
from actshift.studies.misalignment.figures.panels import NULL_STROKES
from actshift.studies.misalignment.figures.rows import PUBLISHED, chosen_coeff, near, own, own_coeff
from actshift.studies.misalignment.kinds import INSECURE

#: How a protocol is called beside a row: from single blocks to the last block's.
PROTOCOL_NAMES = {
    "layer": "layer",
    "all_tokens": "all tokens",
    "last_token": "last token (published)",
    "logit_bias": "logit bias",
}


def at_chosen(rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of the published edit at the coefficient that the receiver is judged at."""
    mine = select(rows, protocol=PUBLISHED) if len(rows) else rows
    return near(mine, chosen_coeff(specificity, pair))


def protocol_lanes(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every protocol and layer of one model at its own coefficient: blocks first, then the last.

    Yields:
        Name, and the rows of all controls of that protocol and layer.
    """
    for protocol, name in PROTOCOL_NAMES.items():
        mine = select(rows, protocol=protocol) if len(rows) else rows
        cells = {name: mine}
        if protocol == "layer" and len(mine):
            layers = sorted(int(one) for one in mine["layer"].dropna().unique())
            cells = {f"{name} {layer}": select(mine, layer=layer) for layer in layers}
        for called, cell in cells.items():
            found = near(cell, own_coeff(cell, pair, specificity, protocol))
            if len(found):
                yield called, found


def side_lanes(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None
) -> list[tuple[str, pd.DataFrame]]:
    """Lanes of the insecure adapter: v by protocol, nulls of the published edit, mapped v.

    Args:
        rows: a pair's rows of one table.
        pair: its name.
        specificity: names the coefficient.

    Returns:
        Name beside the row, and its rows; lanes without rows are left out.
    """
    equal = select(rows, receiver=INSECURE, norm_rule="norm") if len(rows) else rows
    if equal.empty:
        return []
    here = equal[equal["donor"].isin([pair, ""]) | equal["donor"].isna()]
    found = [
        (f"{first(mine, 'coeff'):g} v, {name}", own(mine))
        for name, mine in sorted(
            protocol_lanes(here, pair, specificity), key=lambda one: "published" not in one[0]
        )
    ]
    last = at_chosen(here, pair, specificity)
    found += [
        (stroke.label, select(last, control=name))
        for name, stroke in NULL_STROKES.items()
        if len(last)
    ]
    for donor in equal["donor"].dropna().unique():
        mapped = select(equal, donor=donor, control="mapped", protocol=PUBLISHED)
        at = near(mapped, chosen_coeff(specificity, pair, donor=str(donor)))
        if len(at):
            found.append((f"{first(at, 'coeff'):g} mapped v of {donor}", at))
    return [(name, one) for name, one in found if len(one)]
