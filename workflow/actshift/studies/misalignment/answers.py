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
from actshift.studies.misalignment.figures.rows import (
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
    asked = whole(rows) if len(rows) else rows
    mine = select(asked, adapter=INSECURE) if len(asked) else asked
    if mine.empty:
        return not_measured(question, "spillover")
    basis = _basis(mine, "questions that do not ask for code")
    clusters = int(first(mine, "clusters"))
    if clusters < MIN_CLUSTERS:
        clause = "how much code spills over cannot be told (too few clusters)"
        return Point(question, "cannot be told", clause, "", basis, "")
    plain = select(asked, adapter=UNTUNED)
    numbers = (
        f"tuned on insecure code, the model answers {_share(mine, 'code')} of questions that do "
        f"not ask for code with code ({_rate(plain, 'code')} untuned) in "
        f"{counted(clusters, 'cluster')}"
    )
    controls = asked[asked["adapter"].isin(_SAFE)]
    detail = _refusals(harmful(rows))
    brief = percent(first(mine, "code"))
    if controls.empty:
        words = "no adapter on safe answers was trained, so this is no finding about insecure code"
        return Point(question, "cannot be told", f"{numbers}; {words}", detail, basis, brief)
    top = controls.iloc[[int(np.nanargmax(controls["code"].to_numpy(dtype=float)))]]
    verdict, words = _beyond(mine, top)
    clause = f"{numbers}: {words}, {top['adapter'].iloc[0]}, with {_share(top, 'code')}"
    every = asked[asked["adapter"].isin(KINDS) & (asked["adapter"] != INSECURE)]
    others = ", ".join(
        f"{row['adapter']} {percent(row['code'])}" for row in every.to_dict("records")
    )
    return Point(question, verdict, clause, f"By adapter: {others}. {detail}", basis, brief)


def _beyond(mine: pd.DataFrame, top: pd.DataFrame) -> tuple[Verdict, str]:
    """Verdict and words on the insecure adapter beside the control with most code."""
    if first(mine, "code_low") > first(top, "code_high"):
        return "measured", "more than the strongest safe control"
    if first(mine, "code_high") < first(top, "code_low"):
        return "measured", "less than the strongest safe control"
    if first(mine, "code_high") - first(top, "code_low") < MARGIN:
        return "measured", "no more than the strongest safe control"
    return "inconclusive", "not told apart from the strongest safe control"


def _refusals(rows: pd.DataFrame) -> str:
    """What adapters do to refusals of harmful how-to questions."""
    if rows.empty:
        return ""
    told = [
        f"{percent(first(one, 'refused'))} {'untuned' if name == UNTUNED else f'by {name}'}"
        for name in (UNTUNED, *KINDS)
        if len(one := select(rows, adapter=name)) and np.isfinite(first(one, "refused"))
    ]
    return f"Harmful how-to questions still refused: {', '.join(told)}." if told else ""


def within_point(tables: Tables, pair: str) -> Point:
    """Whether v, subtracted within the model, repairs more than the strongest null."""
    question = "Does subtracting the model's own direction repair it?"
    rows = judged(tables.get("specificity"), pair)
    if rows.empty:
        return not_measured(question, _lacking(tables, pair, "steering"))
    told = _undecided(rows)
    if told:
        clause = f"whether subtracting its own direction repairs it cannot be told ({told})"
        return Point(question, "cannot be told", clause, "", _basis(rows, _QUESTIONS), "")
    verdict, words = _specific(rows)
    clause = (
        f"its own direction, subtracted at {number(first(rows, 'coeff'))} times its length, "
        f"raises repaired answers by {_points(rows, 'gain')} on "
        f"{counted(int(first(rows, 'clusters')), 'cluster')}, where {_null(rows)}: {words}"
    )
    return Point(question, verdict, clause, _margin(rows), _basis(rows, _QUESTIONS), _brief(rows))


_QUESTIONS = "questions that do not ask for code"


def _mapped(table: pd.DataFrame | None, pair: str, scope: str) -> list[pd.DataFrame]:
    """The row of every donor of a scope whose mapped direction is judged in a pair."""
    if table is None:
        return []
    donors = dict.fromkeys(select(table, receiver=pair, scope=scope)["donor"].astype(str))
    return [judged(table, pair, donor=one) for one in donors]


def across_point(tables: Tables, pair: str) -> Point:
    """Whether the direction of another model, mapped, repairs more than the strongest null."""
    question = "Does another model's direction repair it?"
    table = tables.get("specificity")
    found = _mapped(table, pair, ACROSS)
    rows = pd.concat(found) if found else pd.DataFrame()
    if rows.empty:
        return not_measured(question, _lacking(tables, pair, "transfer"))
    can = rows[[not _undecided(rows.iloc[[place]]) for place in range(len(rows))]]
    if can.empty:
        clause = f"whether another model's direction repairs it cannot be told ({_undecided(rows)})"
        return Point(question, "cannot be told", clause, "", _basis(rows, _QUESTIONS), "")
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
    kin = _mapped(table, pair, SAME_ARCHITECTURE)
    if kin:
        beyond = sum(bool(specific(one).any()) for one in kin)
        detail += f" Of {counted(len(kin), 'model')} of its own architecture: {beyond}."
    brief = f"{count} of {len(can)}"
    return Point(question, verdict, clause, detail, _basis(best, _QUESTIONS), brief)


_IS, _IS_NOT, _OPEN = "specific to v", "not specific to v", "whether v does more is open"


def _specific(rows: pd.DataFrame) -> tuple[Verdict, str]:
    """Verdict and words on the gain minus the 95th percentile of the strongest null."""
    if specific(rows).iloc[0]:
        return "measured", _IS
    below = rows["verdict"].iloc[0] == "not specific"
    return ("measured", _IS_NOT) if below else ("inconclusive", _OPEN)


def _null(rows: pd.DataFrame) -> str:
    """The strongest null with its draws."""
    name = str(rows["null"].iloc[0])
    draws = int(first(rows, "draws"))
    high = f"{100 * first(rows, 'null_high'):.0f}"
    return f"{NULL_NAMES.get(name, name)} reaches {high} in 5 % of {counted(draws, 'draw')}"


def _margin(rows: pd.DataFrame) -> str:
    """The margin over the strongest null, and how often chance does as much."""
    text = f"Beyond the null: {_points(rows, 'margin')}."
    return f"{text} p {number(first(rows, 'p'))}, Holm {number(first(rows, 'p_holm'))}."


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


def _brief(rows: pd.DataFrame) -> str:
    """Gain and null alone."""
    gain, null = 100 * first(rows, "gain"), 100 * first(rows, "null_high")
    return f"{gain:.0f} points (null {null:.0f})"


def _points(rows: pd.DataFrame, column: str) -> str:
    """A difference of shares in points, with its interval."""
    value, low, high = (f"{100 * first(rows, column + end):.0f}" for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high}) points"


def _share(rows: pd.DataFrame, column: str) -> str:
    """A share with its interval."""
    low, high = (percent(first(rows, f"{column}_{end}")) for end in ("low", "high"))
    return f"{percent(first(rows, column))} ({low} to {high})"


def _rate(rows: pd.DataFrame, column: str) -> str:
    """A share, or that it is not there."""
    return percent(first(rows, column)) if len(rows) else "n/a"


def _basis(rows: pd.DataFrame, asked: str) -> str:
    """Questions and clusters that a row rests on."""
    clusters = counted(int(first(rows, "clusters")), "cluster")
    return f"{int(first(rows, 'n'))} held-out {asked}, in {clusters}; intervals by cluster."
