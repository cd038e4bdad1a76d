"""Sentences on localization: the points of a pair's answer, and what is seen in each figure.

Numbers are those of the primary condition (harmful pairs; natural length unless the sentence says
otherwise).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from actshift.report.point import (
    MIN_CLUSTERS,
    Point,
    Verdict,
    counted,
    not_measured,
    number,
    spread,
    unit,
)
from actshift.report.tables import Tables, first, select, values
from actshift.vocab import ROLES

#: "Few" is at most this many effective units, in shares of the layers.
FEW = 0.25
#: A curve that ends below this share of its largest value has come down again.
COME_DOWN = 0.5
#: Whole units of the swaps; the others are parts of a block.
_UNITS = ("embeddings", "block", "head")
_PLACE = {"direction": "forward", "positions": "last_prompt"}
#: Controls of a patch at one token, as the sentence calls them.
_CONTROLS = {
    "noise": "noise of the donor's size",
    "random": "a random direction",
    "other_condition": "a donor on the other condition",
}
#: How a clause and how the detail speak of an operation.
_WAYS = {
    "insert": "carry the preference into the base",
    "remove": "take it from the tuned model",
}
_PLACES = {"insert": "put into the base", "remove": "taken from the tuned model"}


def points(tables: Tables, pair: str) -> list[Point]:
    """What the tables say about one pair."""
    return [swap_point(tables, pair), prompt_token_point(tables, pair)]


def swap_point(tables: Tables, pair: str) -> Point:
    """Whether few units of the weights carry the preference, inserted and removed."""
    question = "Do few units carry the preference?"
    over = primary(tables, "localization_summary", pair=pair, statistic="n_eff_over_layers")
    units = primary(tables, "block_swap", pair=pair)
    units = units[units["part"].isin(_UNITS)] if len(units) else units
    if over.empty or units.empty:
        return _no_preference(question, tables, pair)
    if why := _undecided(over):
        clause = f"how many units carry the preference cannot be told ({why})"
        return Point(question, "cannot be told", clause, "", _basis(over), "")
    layers = len(units["layer"].dropna().unique())
    count = layers + 2
    effective = [
        f"{number(row['value'] * layers)} ({number(row['value_low'] * layers)} to "
        f"{number(row['value_high'] * layers)}) {_WAYS[row['operation']]}"
        for row in over.to_dict("records")
    ]
    clusters = counted(int(first(over, "clusters")), "cluster")
    numbers = (
        f"exchanged one by one, of {count} units effectively {', '.join(effective)}, counted on "
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


def _few(over: pd.DataFrame, layers: int) -> tuple[Verdict, str]:
    """Verdict and words on the effective number of units."""
    least = f"a quarter of {counted(layers, 'layer')}"
    if values(over, "value_high").max() < FEW:
        return "measured", f"few, under {least} either way"
    if values(over, "value_low").max() > FEW:
        return "measured", f"not few, above {least}"
    return "inconclusive", f"whether that is under {least} is open"


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
    rows = primary(tables, "positions", pair=pair, **_PLACE)
    if rows.empty:
        return not_measured(question, "positions")
    peak, goal = first(rows, "peak"), abs(first(rows, "gap"))
    clusters = int(first(rows, "clusters"))
    if why := _undecided(rows):
        clause = f"where the last prompt token carries the preference cannot be told ({why})"
        return Point(question, "cannot be told", clause, "", _basis(rows), "")
    layer = int(first(rows, "peak_layer"))
    last = int(values(select(tables["patching"], pair=pair), "layer").max())
    brief = f"layer {layer} ({unit(peak / goal)} of the gap)"
    controls = primary(tables, "controls", pair=pair, layer=layer, **_PLACE)
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
    effects = {
        name: _towards(rows) for name in _CONTROLS if len(rows := select(controls, control=name))
    }
    best = max(effects, key=lambda name: effects[name], default="")
    return best, effects.get(best, -np.inf)


def _beside(controls: pd.DataFrame) -> str:
    """What donors that read another pair do in the same place, and the strongest other control."""
    parts = []
    for name in dict.fromkeys(("shuffled", "other_condition", _strongest(controls)[0])):
        rows = select(controls, control=name)
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
        rows = select(controls, control=name)
        if len(rows) and np.isfinite(first(rows, "of_patch")):
            parts.append(f"{ends(rows, 'of_patch')} of that with a donor on {words}")
    return f"{'; '.join(parts)}: near 1 means generic.".capitalize() if parts else ""


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


def primary(
    tables: Tables, name: str, *, length: str = "natural", **cell: str | int | bool
) -> pd.DataFrame:
    """The rows of the primary condition at one length, and of a further cell such as a pair."""
    return select(of_condition(select(tables.get(name))), length=length, **cell)


def of_condition(rows: pd.DataFrame) -> pd.DataFrame:
    """Harmful pairs, as the gate takes them; the first condition where there are none."""
    if rows.empty:
        return rows
    conditions = list(rows["condition"].unique())
    return select(rows, condition="harmful" if "harmful" in conditions else conditions[0])


def condition_of(rows: pd.DataFrame) -> str:
    """Whose preference pairs these are."""
    return str(rows["condition"].iloc[0])


def ends(rows: pd.DataFrame, column: str) -> str:
    """A value with its interval."""
    value, low, high = (number(first(rows, f"{column}{end}")) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


_FORWARD = {"direction": "forward"}


def seen(name: str, tables: Tables) -> str:
    """The sentence of one figure, smallest to largest number over the pairs of models.

    Empty where its table has no rows to speak of.
    """
    table, say = SEEN[name]
    rows = primary(tables, table, length="matched" if table == "sources" else "natural")
    if rows.empty:
        return ""
    return f"{say(rows)} ({_sizes(rows)})."


def _sizes(rows: pd.DataFrame) -> str:
    """Condition, preference pairs and clusters."""
    n, clusters = (spread(rows[column]) for column in ("n", "clusters"))
    return f"{condition_of(rows)} pairs, n {n} in {clusters} clusters"


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each pair's last layer."""
    return rows[rows["layer"] == rows.groupby("pair")["layer"].transform("max")]


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are means over layers."""
    return rows[rows["layer"].isna()]


def _of_pairs(rows: pd.DataFrame, keep: pd.Series) -> str:
    """In how many pairs of models something holds: 3 of 4 pairs."""
    return f"{keep.groupby(rows['pair']).all().sum()} of {counted(rows['pair'].nunique(), 'model')}"


def _patched(direction: str) -> Callable[[pd.DataFrame], str]:
    def say(rows: pd.DataFrame) -> str:
        last = _last(select(rows, direction=direction))
        whole, token = (select(last, positions=name) for name in ("all", "last_prompt"))
        return (
            f"At the last layer, the effect is {spread(whole['effect'])} nats for all positions "
            f"and {spread(token['effect'])} for the last prompt token; the gap between the models "
            f"is {spread(rows['gap'])}"
        )

    return say


def _controls(rows: pd.DataFrame) -> str:
    parts = []
    for positions, where in (("all", "all positions"), ("last_prompt", "the last prompt token")):
        last = _last(select(rows, positions=positions, **_FORWARD))
        shuffled, other, noise = (
            spread(select(last, control=name)["of_patch"])
            for name in ("shuffled", "other_condition", "noise")
        )
        parts.append(
            f"at {where} of the last layer, donors on another pair have {shuffled} of the patch's "
            f"effect, donors on the other condition {other} and noise {noise}"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _interpolation(rows: pd.DataFrame) -> str:
    steps = _pooled(select(rows, positions="all", **_FORWARD)).dropna(subset=["step"])
    smallest = steps.groupby("pair")["step"].min()
    return (
        f"Averaged over layers, the tuned states' effect rises with every step in "
        f"{_of_pairs(steps, steps['step_low'] > 0)}; the smallest step is {spread(smallest)} nats"
    )


def _sources(rows: pd.DataFrame) -> str:
    last = _last(select(rows, positions="completion", **_FORWARD))
    donor, chosen, rejected, contrast = (
        spread(select(last, source=name)["effect"])
        for name in ("donor", "chosen", "rejected", "contrast")
    )
    return (
        f"At the last layer, the effect is {chosen} nats for states read on the chosen answer, "
        f"{rejected} for the rejected answer, {contrast} for their difference, and {donor} "
        f"for each answer's own states"
    )


def _low_rank(rows: pd.DataFrame) -> str:
    four = _pooled(select(rows, positions="all", rank=4, **_FORWARD))
    kept, alone = (select(four, keep_rest=keep) for keep in (True, False))
    shift, states, random = (
        spread(select(kept, basis=name)["of_full"]) for name in ("shift", "states", "random")
    )
    return (
        f"With the rest kept, four directions have {shift} (shift), {states} (tuned states) and "
        f"{random} (random) of the full patch's effect; the tuned part alone has "
        f"{spread(select(alone, basis='states')['of_full'])} times that effect, and Gaussian noise "
        f"{spread(four['noise_of_full'])} times"
    )


def _positions(rows: pd.DataFrame) -> str:
    token = select(rows, positions="last_prompt", **_FORWARD)
    inside = _of_pairs(token, token["interior"] == 1)
    return (
        f"At the last prompt token, the largest effect of the tuned states is "
        f"{spread(token['peak_share'])} of the gap, at an interior layer in {inside}; the last "
        f"layer has {spread(token['edge_over_peak'])} of that effect"
    )


def _swaps(rows: pd.DataFrame) -> str:
    units = rows[rows["part"].isin(_UNITS)]
    parts = []
    for operation, words in (("insert", "put into the base"), ("remove", "taken from the tuned")):
        of_operation = select(units, operation=operation).dropna(subset=["share"])
        top = of_operation.loc[of_operation.groupby("pair")["share"].idxmax()]
        names = [
            str(part) if pd.isna(layer) else f"block {layer:g}"
            for part, layer in zip(top["part"], top["layer"], strict=True)
        ]
        which = ", ".join(dict.fromkeys(names))
        total = spread(of_operation.groupby("pair")["share"].sum())
        parts.append(f"{words}: {spread(top['share'])} of the gap ({which}), all together {total}")
    return f"Largest unit {'; '.join(parts)}"


def _distances(rows: pd.DataFrame) -> str:
    last, low = _last(rows), rows[rows["layer"] == 0]
    chosen = select(last, position="last_chosen")
    first_norm = select(low, position="last_chosen").set_index("pair")["norm"]
    growth = chosen.set_index("pair")["norm"] / first_norm
    return (
        f"At the last chosen token, the two models' states are {spread(chosen['norm'])} apart at "
        f"the last layer, {spread(growth)} times the distance at the first layer"
    )


def _lasso(rows: pd.DataFrame) -> str:
    cell = {"position": "last_chosen", "target": "gap", "model": "lasso", "folds": "cluster"}
    fits = select(rows, **cell).drop_duplicates("pair")
    return (
        f"For the gap, the lasso keeps {spread(fits['support'])} layers; its R² on unseen clusters "
        f"is {spread(fits['r2_out'])}, with an interval above zero in "
        f"{_of_pairs(fits, fits['r2_out_low'] > 0)}"
    )


def _stability(rows: pd.DataFrame) -> str:
    cells = select(rows, position="last_chosen", target="gap").drop_duplicates("pair")
    return (
        f"For the gap, {spread(cells['stable_layers'])} layers are chosen beyond chance, "
        f"{spread(cells['distance_to_peak'])} layers from the layer of the largest patch"
    )


#: Figure -> its table, and what is said of that table's rows.
SEEN: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {
    "patch_forward": ("patching", _patched("forward")),
    "patch_reverse": ("patching", _patched("reverse")),
    "patch_controls": ("controls", _controls),
    "patch_interpolation": ("interpolation", _interpolation),
    "patch_sources": ("sources", _sources),
    "patch_low_rank": ("low_rank", _low_rank),
    "patch_positions": ("positions", _positions),
    "swap_shares": ("block_swap", _swaps),
    "state_distances": ("distances", _distances),
    "lasso_coefficients": ("lasso", _lasso),
    "lasso_stability": ("lasso_stability", _stability),
}
