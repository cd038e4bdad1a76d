"""The points of an answer that rest on patched states and exchanged weights."""

import numpy as np
import pandas as pd

from actshift.report.point import MIN_CLUSTERS, Point, Verdict, counted, not_measured, number, unit
from actshift.report.tables import Tables, first, select, values
from actshift.studies.localization.figures.rows import condition_of, ends, of_condition, primary
from actshift.vocab import ROLES

#: "Few" is at most this many effective units, in shares of the layers.
FEW = 0.25
#: A curve that ends below this share of its largest value has come down again.
COME_DOWN = 0.5
_PLACE = {"direction": "forward", "positions": "last_prompt"}
#: Controls of a patch at one token, as the sentence calls them.
_CONTROLS = {
    "noise": "noise of the donor's size",
    "random": "a random direction",
    "other_condition": "a donor on the other condition",
}


def points(tables: Tables, pair: str) -> list[Point]:
    """What the tables say about one pair."""
    return [swap_point(tables, pair), prompt_token_point(tables, pair)]


def swap_point(tables: Tables, pair: str) -> Point:
    """Whether few units of the weights carry the preference, inserted and removed."""
    question = "Do few units carry the preference?"
    rows = primary(tables, "localization_summary", pair=pair)
    over = select(rows, statistic="n_eff_over_layers") if len(rows) else rows
    units = _units(tables, pair)
    if over.empty or units.empty:
        return _no_preference(question, tables, pair)
    if why := _undecided(over):
        clause = f"how many units carry the preference cannot be told ({why})"
        return Point(question, "cannot be told", clause, "", _basis(over), "")
    layers = len(units["layer"].dropna().unique())
    count = layers + 2
    found = [
        f"{number(row['value'] * layers)} ({number(row['value_low'] * layers)} to "
        f"{number(row['value_high'] * layers)}) {_WAYS[row['operation']]}"
        for row in over.to_dict("records")
    ]
    clusters = counted(int(first(over, "clusters")), "cluster")
    numbers = (
        f"exchanged one by one, of {count} units effectively {', '.join(found)}, counted on "
        f"{condition_of(over)} pairs in {clusters} (an even spread would be {count})"
    )
    brief = f"{' and '.join(number(value * layers) for value in over['value'])} of {count}"
    verdict, words = _few(over, layers)
    return Point(
        question, verdict, f"{numbers}: {words}", _largest(units, over), _basis(over), brief
    )


def _no_preference(question: str, tables: Tables, pair: str) -> Point:
    """The point of a pair without rows: its margins say why, where it missed the gate."""
    rows = of_condition(select(tables.get("preference_margins"), pair=pair))
    if rows.empty or first(rows, "gap_low") > 0:
        return not_measured(question, "block_swap")
    clause = (
        f"on {condition_of(rows)} pairs the tuned model's margin is {ends(rows, 'gap')} nats above "
        f"the base's on {counted(int(first(rows, 'clusters')), 'cluster')}, so there is no "
        "preference to localise"
    )
    base, tuned = (number(first(rows, f"margin_{role}")) for role in ROLES)
    detail = f"log p(chosen) minus log p(rejected): {base} nats in the base, {tuned} in the tuned."
    return Point(question, "cannot be told", clause, detail, _basis(rows), "no preference")


#: How a clause and how the detail speak of an operation.
_WAYS = {
    "insert": "carry the preference into the base",
    "remove": "take it from the tuned model",
}
_PLACES = {"insert": "put into the base", "remove": "taken from the tuned model"}


def _few(over: pd.DataFrame, layers: int) -> tuple[Verdict, str]:
    """Verdict and words on the effective number of units."""
    least = f"a quarter of {counted(layers, 'layer')}"
    if values(over, "value_high").max() < FEW:
        return "measured", f"few, under {least} either way"
    if values(over, "value_low").max() > FEW:
        return "measured", f"not few, above {least}"
    return "inconclusive", f"whether that is under {least} is open"


def _units(tables: Tables, pair: str) -> pd.DataFrame:
    """Whole units of the swaps: embeddings, blocks and head."""
    rows = primary(tables, "block_swap", pair=pair)
    return rows[rows["part"].isin(["embeddings", "block", "head"])] if len(rows) else rows


def _largest(units: pd.DataFrame, over: pd.DataFrame) -> str:
    """The largest unit of each operation, with its share of the gap."""
    parts = []
    for operation in over["operation"]:
        units_of = select(units, operation=operation).dropna(subset=["share"])
        if units_of.empty:
            continue
        top = units_of.iloc[int(units_of["share"].to_numpy(dtype=float).argmax())]
        name = str(top["part"]) if pd.isna(top["layer"]) else f"block {top['layer']:g}"
        share = ends(top.to_frame().T, "share")
        total = number(float(units_of["share"].sum()))
        parts.append(
            f"Largest when {_PLACES[str(operation)]}: {name}, {share} of the gap; all units "
            f"together {total}."
        )
    return " ".join(parts) or "No share of the gap was measured."


def prompt_token_point(tables: Tables, pair: str) -> Point:
    """Where tuned states at the last prompt token do most, beside controls of the same patch."""
    question = "Where does the last prompt token carry it?"
    rows = primary(tables, "positions", pair=pair)
    rows = select(rows, **_PLACE) if len(rows) else rows
    if rows.empty:
        return not_measured(question, "positions")
    peak, goal = first(rows, "peak"), abs(first(rows, "gap"))
    clusters = int(first(rows, "clusters"))
    if why := _undecided(rows):
        clause = f"where the last prompt token carries the preference cannot be told ({why})"
        return Point(question, "cannot be told", clause, "", _basis(rows), "")
    layer, last = int(first(rows, "peak_layer")), _last_layer(tables, pair)
    brief = f"layer {layer} ({unit(peak / goal)} of the gap)"
    controls = primary(tables, "controls", pair=pair)
    controls = select(controls, layer=layer, **_PLACE) if len(controls) else controls
    moves = (
        f"patched at the last prompt token alone, the tuned states do most at layer {layer} of "
        f"0-{last}, {number(peak)} of {number(goal)} nats on {counted(clusters, 'cluster')}"
        f"{_beside(controls)}"
    )
    verdict, words = _shape(rows, controls, layer == last)
    detail = f"{ends(rows, 'peak')} nats there, {ends(rows, 'last_layer')} at the last layer. "
    detail += _generic(controls)
    return Point(question, verdict, f"{moves}: {words}", detail, _basis(rows), brief)


def _shape(rows: pd.DataFrame, controls: pd.DataFrame, at_the_end: bool) -> tuple[Verdict, str]:
    """Verdict and words on the curve over layers at the last prompt token."""
    low, high = first(rows, "edge_over_peak_low"), first(rows, "edge_over_peak_high")
    if not first(rows, "peak_low") > 0:
        return "cannot be told", "that token alone moves nothing"
    if _strongest(controls)[1] >= first(rows, "peak"):
        return "cannot be told", "no more than a control does"
    if at_the_end:
        return "measured", "largest at the very end, so no place inside stands out"
    if high < COME_DOWN:
        return "measured", "it falls to less than half after that layer"
    if low > COME_DOWN:
        return "measured", "it does not fall to half after that layer"
    return "inconclusive", "whether it falls to half after that layer is open"


def _strongest(controls: pd.DataFrame) -> tuple[str, float]:
    """Name and effect, towards the donor, of the strongest control; -inf without one."""
    found = {}
    for name in _CONTROLS:
        rows = select(controls, control=name) if len(controls) else controls
        if len(rows):
            found[name] = _towards(rows)
    best = max(found, key=lambda name: found[name], default="")
    return best, found.get(best, -np.inf)


def _beside(controls: pd.DataFrame) -> str:
    """What donors that read another pair do in the same place, and the strongest other control."""
    parts = []
    for name in dict.fromkeys(("shuffled", "other_condition", _strongest(controls)[0])):
        rows = select(controls, control=name) if len(controls) else controls
        if len(rows):
            words = _CONTROLS.get(name, "a donor on another pair of the condition")
            parts.append(f"{words} does {number(_towards(rows))}")
    return f" ({', '.join(parts)})" if parts else ""


def _towards(rows: pd.DataFrame) -> float:
    """A forward effect, positive towards the donor."""
    return float(np.sign(first(rows, "gap")) * first(rows, "effect"))


def _generic(controls: pd.DataFrame) -> str:
    """Donors that read another pair: of the same condition, and of the other one."""
    parts = []
    kinds = {"shuffled": "another pair of the same condition", "other_condition": "the other one"}
    for name, words in kinds.items():
        rows = select(controls, control=name) if len(controls) else controls
        if len(rows) and np.isfinite(first(rows, "of_patch")):
            parts.append(f"{ends(rows, 'of_patch')} of that with a donor on {words}")
    return f"{'; '.join(parts)}: near 1 means generic.".capitalize() if parts else ""


def _last_layer(tables: Tables, pair: str) -> int:
    """Number of the model's last block."""
    return int(values(select(tables["patching"], pair=pair), "layer").max())


def _undecided(rows: pd.DataFrame) -> str:
    """Why nothing can be said; empty where something can."""
    if str(rows["status"].iloc[0]) != "decided":
        return str(rows["why"].iloc[0])
    return "too few clusters" if int(first(rows, "clusters")) < MIN_CLUSTERS else ""


def _basis(rows: pd.DataFrame) -> str:
    """Pairs and clusters that a row rests on."""
    clusters = counted(int(first(rows, "clusters")), "cluster")
    return (
        f"{int(first(rows, 'n'))} {condition_of(rows)} preference pairs in {clusters}, answers at "
        "their own length; intervals by cluster."
    )
