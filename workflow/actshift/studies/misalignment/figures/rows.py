"""Rows of the misalignment tables that figures and sentences speak of."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from actshift.report.tables import first, select
from actshift.studies.misalignment.figures.panels import NULL_STROKES
from actshift.studies.misalignment.kinds import INSECURE, MAPPED_NULLS, NULLS
from actshift.vocab import NEUTRAL

#: Edit of the published protocol.
PUBLISHED = "last_token"
#: Name of the rows over all kinds of question.
ALL = "all"
#: An effect has to exceed the strongest null by this share.
MARGIN = 0.1
#: Controls of equal norm, within a model and across models.
EVERY_NULL = (*NULLS, *MAPPED_NULLS)


def heldout(rows: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of held-out questions; no table gives no rows."""
    if rows is None or rows.empty:
        return pd.DataFrame()
    return select(rows, split="heldout") if "split" in rows else rows


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows over all kinds of question; the only kind where there is one."""
    if rows.empty or (rows["kind"] == ALL).any():
        return select(rows, kind=ALL) if len(rows) else rows
    return rows if rows["kind"].nunique() == 1 else rows.iloc[:0]


def harmful(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of harmful how-to questions, which the untuned model refuses."""
    return rows[rows["kind"].astype(str).str.contains("harmful")] if len(rows) else rows


def judged(
    specificity: pd.DataFrame | None,
    receiver: str,
    *,
    donor: str | None = None,
    protocol: str = PUBLISHED,
) -> pd.DataFrame:
    """The row of a donor and receiver that their verdict rests on; none without it.

    Args:
        specificity: the table.
        receiver: pair that is edited.
        donor: pair that v comes from; the receiver itself unless told.
        protocol: of the edit.
    """
    rows = select(specificity, receiver=receiver, donor=donor or receiver)
    return neutral(select(rows, protocol=protocol)).iloc[:1] if len(rows) else rows


def chosen_coeff(
    specificity: pd.DataFrame | None,
    receiver: str,
    *,
    donor: str | None = None,
) -> float:
    """The coefficient of the published edit, chosen on select questions.

    Returns:
        NaN where none was chosen.
    """
    rows = judged(specificity, receiver, donor=donor)
    return first(rows, "coeff") if len(rows) else float("nan")


def own_coeff(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None, protocol: str
) -> float:
    """The coefficient chosen on select questions for one protocol and layer.

    Args:
        rows: of that protocol and layer, nulls among them.
        pair: its name.
        specificity: names the coefficient of some protocols.
        protocol: of the edit.

    Returns:
        What `specificity` says; else where nulls were drawn, which is at the coefficient chosen
        before (the nearest to the published edit's, if at several); else the published edit's.
    """
    verdict = judged(specificity, pair, protocol=protocol)
    if len(verdict):
        return first(verdict, "coeff")
    published = chosen_coeff(specificity, pair)
    drawn = near(nulls(rows), published)
    return first(drawn, "coeff") if len(drawn) else published


def specific(rows: pd.DataFrame) -> pd.Series:
    """Which rows exceed the strongest null by ten points, beyond chance and with answers whole."""
    return rows["verdict"] == "specific"


def neutral(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of maps that are fitted on neutral prompts alone, and rows without a map."""
    if rows.empty or "fit_on" not in rows:
        return rows
    return rows[rows["fit_on"].isna() | rows["fit_on"].isin([NEUTRAL, ""])]


def near(rows: pd.DataFrame, coeff: float) -> pd.DataFrame:
    """Rows at the coefficient nearest to `coeff`; at the largest where none was chosen."""
    if rows.empty or rows["coeff"].isna().all():
        return rows.iloc[:0]
    at = rows["coeff"].to_numpy(dtype=float)
    goal = float(np.nanmax(at)) if np.isnan(coeff) else coeff
    distance = np.abs(at - goal)
    return rows[np.isclose(distance, np.nanmin(distance))]


def lanes(table: pd.DataFrame | None, pair: str, **cell: str | int | bool) -> pd.DataFrame:
    """Held-out rows of a pair's edits at equal norm, of the insecure adapter unless told."""
    rows = select(heldout(table), pair=pair) if table is not None and len(table) else None
    if rows is None or rows.empty:
        return pd.DataFrame()
    return select(rows, **({"receiver": INSECURE, "norm_rule": "norm"} | cell))


def own(rows: pd.DataFrame, source: str = INSECURE) -> pd.DataFrame:
    """Rows of a direction itself."""
    return select(rows, control="direction", source=source) if len(rows) else rows


def nulls(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of nulls, each with all its draws, of v_insecure."""
    if rows.empty:
        return rows
    mine = rows[rows["control"].isin(EVERY_NULL)]
    return mine[mine["source"].isna() | mine["source"].isin([INSECURE, ""])]


def ordered_pairs(table: pd.DataFrame | None) -> list[str]:
    """Pairs that a table of donors and receivers names, in its order."""
    if table is None or table.empty:
        return []
    names = zip(table["receiver"], table["donor"], strict=True)
    return list(dict.fromkeys(str(one) for both in names for one in both))


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
