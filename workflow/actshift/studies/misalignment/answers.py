"""The points of an answer that rest on adapters and on edits along their directions."""

import numpy as np
import pandas as pd

from actshift.report.point import (
    MIN_CLUSTERS,
    Point,
    Verdict,
    counted,
    not_measured,
    number,
    percent,
)
from actshift.report.tables import Tables, first, select
from actshift.studies.misalignment.figures.panels import (
    MARGIN,
    harmful,
    heldout,
    judged,
    specific,
    whole,
)
from actshift.studies.misalignment.kinds import ACROSS, INSECURE, KINDS, SAME_ARCHITECTURE, UNTUNED
from actshift.vocab import NONCODE

#: How a sentence calls the strongest null.
NULL_NAMES = {
    "random": "a random direction",
    "random_span": "a random direction in the span of activations",
    "orthogonal": "a random direction orthogonal to v",
    "shuffled": "the difference of shuffled answers' states",
    "mapped_random": "a random direction through the same map",
    "shuffled_pairing": "v through a map of shuffled pairs",
}


#: Adapters whose answers hold nothing insecure; those of `shuffled` are the insecure ones.
_SAFE = ("rare_safe", "secure", "benign")


def points(tables: Tables, pair: str) -> list[Point]:
    """What the tables say about one pair."""
    return [spillover_point(tables, pair), within_point(tables, pair), across_point(tables, pair)]


def spillover_point(tables: Tables, pair: str) -> Point:
    """How much code spillover the insecure adapter has, beside every control."""
    question = "Does tuning on insecure code spill code into other answers?"
    rows = select(heldout(tables.get("spillover")), pair=pair, condition=NONCODE)
    asked = whole(rows)
    insecure = select(asked, adapter=INSECURE)
    if insecure.empty:
        return not_measured(question, "spillover")
    basis = _basis(insecure)
    clusters = int(first(insecure, "clusters"))
    if clusters < MIN_CLUSTERS:
        clause = "how much code spills over cannot be told (too few clusters)"
        return Point(question, "cannot be told", clause, "", basis, "")
    plain = select(asked, adapter=UNTUNED)
    untuned = percent(first(plain, "code")) if len(plain) else "n/a"
    numbers = (
        f"tuned on insecure code, the model answers {_share(insecure, 'code')} of questions that "
        f"do not ask for code with code ({untuned} untuned) in {counted(clusters, 'cluster')}"
    )
    controls = asked[asked["adapter"].isin(_SAFE)]
    detail = _refusals(harmful(rows))
    brief = percent(first(insecure, "code"))
    if controls.empty:
        words = "no adapter on safe answers was trained, so this is no finding about insecure code"
        return Point(question, "cannot be told", f"{numbers}; {words}", detail, basis, brief)
    top = controls.iloc[[int(np.nanargmax(controls["code"].to_numpy(dtype=float)))]]
    verdict, words = _beyond(insecure, top)
    clause = f"{numbers}: {words}, {top['adapter'].iloc[0]}, with {_share(top, 'code')}"
    every = asked[asked["adapter"].isin(KINDS) & (asked["adapter"] != INSECURE)]
    others = ", ".join(
        f"{row['adapter']} {percent(row['code'])}" for row in every.to_dict("records")
    )
    return Point(question, verdict, clause, f"By adapter: {others}. {detail}", basis, brief)


def _beyond(insecure: pd.DataFrame, top: pd.DataFrame) -> tuple[Verdict, str]:
    """Verdict and words on the insecure adapter beside the control with most code."""
    if first(insecure, "code_low") > first(top, "code_high"):
        return "measured", "more than the strongest safe control"
    if first(insecure, "code_high") < first(top, "code_low"):
        return "measured", "less than the strongest safe control"
    if first(insecure, "code_high") - first(top, "code_low") < MARGIN:
        return "measured", "no more than the strongest safe control"
    return "inconclusive", "not told apart from the strongest safe control"


def _refusals(rows: pd.DataFrame) -> str:
    """What adapters do to refusals of harmful how-to questions."""
    if rows.empty:
        return ""
    rates = [
        f"{percent(first(one, 'refused'))} {'untuned' if name == UNTUNED else f'by {name}'}"
        for name in (UNTUNED, *KINDS)
        if len(one := select(rows, adapter=name)) and np.isfinite(first(one, "refused"))
    ]
    return f"Harmful how-to questions still refused: {', '.join(rates)}." if rates else ""


def within_point(tables: Tables, pair: str) -> Point:
    """Whether v, subtracted within the model, repairs more than the strongest null."""
    question = "Does subtracting the model's own direction repair it?"
    rows = judged(tables.get("specificity"), pair)
    if rows.empty:
        return not_measured(question, _lacking(tables, pair, "steering"))
    reason = _undecided(rows)
    if reason:
        clause = f"whether subtracting its own direction repairs it cannot be told ({reason})"
        return Point(question, "cannot be told", clause, "", _basis(rows), "")
    verdict, words = _specific(rows)
    clause = (
        f"its own direction, subtracted at {number(first(rows, 'coeff'))} times its length, "
        f"raises repaired answers by {_points(rows, 'gain')} on "
        f"{counted(int(first(rows, 'clusters')), 'cluster')}, where {_null(rows)}: {words}"
    )
    detail = (
        f"Beyond the null: {_points(rows, 'margin')}. p {number(first(rows, 'p'))}, Holm "
        f"{number(first(rows, 'p_holm'))}."
    )
    gain, null = 100 * first(rows, "gain"), 100 * first(rows, "null_high")
    brief = f"{gain:.0f} points (null {null:.0f})"
    return Point(question, verdict, clause, detail, _basis(rows), brief)


def _mapped(tables: Tables, pair: str, scope: str) -> list[pd.DataFrame]:
    """The row of every donor of a scope whose mapped direction is judged in a pair."""
    table = tables.get("specificity")
    if table is None:
        return []
    donors = dict.fromkeys(select(table, receiver=pair, scope=scope)["donor"].astype(str))
    return [judged(table, pair, donor=one) for one in donors]


def across_point(tables: Tables, pair: str) -> Point:
    """Whether the direction of another model, mapped, repairs more than the strongest null."""
    question = "Does another model's direction repair it?"
    found = _mapped(tables, pair, ACROSS)
    rows = pd.concat(found) if found else pd.DataFrame()
    if rows.empty:
        return not_measured(question, _lacking(tables, pair, "transfer"))
    can = rows[[not _undecided(rows.iloc[[place]]) for place in range(len(rows))]]
    if can.empty:
        clause = f"whether another model's direction repairs it cannot be told ({_undecided(rows)})"
        return Point(question, "cannot be told", clause, "", _basis(rows), "")
    best = can.iloc[[int(np.nanargmax(can["margin"].to_numpy(dtype=float)))]]
    count = int(specific(can).sum())
    verdict, words = _specific(best)
    clusters = counted(int(first(best, "clusters")), "cluster")
    clause = (
        f"of {counted(len(can), 'other model')}, the direction of {count} repairs beyond the "
        f"strongest null by {100 * MARGIN:.0f} points; {best['donor'].iloc[0]} comes furthest "
        f"with a change of {_points(best, 'gain')} on {clusters}, where {_null(best)}: {words}"
    )
    parts = [
        f"{row['donor']} {100 * row['gain']:.0f} (null {100 * row['null_high']:.0f})"
        for row in can.to_dict("records")
    ]
    detail = f"Points gained, and 95th percentile of the strongest null: {', '.join(parts)}."
    left_out = [
        f"{one['donor'].iloc[0]} ({why})" for one in found if len(one) and (why := _undecided(one))
    ]
    if left_out:
        detail += f" Not judged: {', '.join(left_out)}."
    if _why(best):
        detail += f" Of {best['donor'].iloc[0]}: {_why(best)}."
    if kin := _mapped(tables, pair, SAME_ARCHITECTURE):
        beyond = sum(bool(specific(one).any()) for one in kin)
        detail += f" Of {counted(len(kin), 'model')} of its own architecture: {beyond}."
    brief = f"{count} of {len(can)}"
    return Point(question, verdict, clause, detail, _basis(best), brief)


def _specific(rows: pd.DataFrame) -> tuple[Verdict, str]:
    """Verdict and words on the gain minus the 95th percentile of the strongest null."""
    if specific(rows).iloc[0]:
        return "measured", "specific to v"
    if rows["verdict"].iloc[0] == "not specific":
        return "measured", "not specific to v"
    return "inconclusive", "whether v does more is open"


def _null(rows: pd.DataFrame) -> str:
    """The strongest null with its draws."""
    name = str(rows["null"].iloc[0])
    draws = int(first(rows, "draws"))
    high = f"{100 * first(rows, 'null_high'):.0f}"
    return f"{NULL_NAMES.get(name, name)} reaches {high} in 5 % of {counted(draws, 'draw')}"


def _undecided(rows: pd.DataFrame) -> str:
    """Why nothing can be said; empty where something can."""
    values = rows[["gain", "margin", "margin_low", "margin_high"]].iloc[0].to_numpy(dtype=float)
    if np.isnan(values).any():
        return _why(rows) or "not measured"
    if str(rows["status"].iloc[0]) == "broken":
        return "the edit breaks more than a tenth of the answers"
    return "too few clusters" if int(first(rows, "clusters")) < MIN_CLUSTERS else ""


def _why(rows: pd.DataFrame) -> str:
    """What the table says of how the first row came about."""
    why = rows["why"].iloc[0] if "why" in rows else ""
    return why if isinstance(why, str) else ""


def _lacking(tables: Tables, pair: str, source: str) -> str:
    """The table that lacks the pair: the one that specificity is made from, or it alone."""
    return source if select(tables.get(source), pair=pair).empty else "specificity"


def _points(rows: pd.DataFrame, column: str) -> str:
    """A difference of shares in points, with its interval."""
    value, low, high = (f"{100 * first(rows, column + end):.0f}" for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high}) points"


def _share(rows: pd.DataFrame, column: str) -> str:
    low, high = (percent(first(rows, f"{column}_{end}")) for end in ("low", "high"))
    return f"{percent(first(rows, column))} ({low} to {high})"


def _basis(rows: pd.DataFrame) -> str:
    """Questions and clusters that a row rests on."""
    clusters = counted(int(first(rows, "clusters")), "cluster")
    return (
        f"{int(first(rows, 'n'))} held-out questions that do not ask for code, in {clusters}; "
        "intervals by cluster."
    )
