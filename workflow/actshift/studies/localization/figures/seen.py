"""What is seen in each figure of localization, in one sentence made from the tables.

Numbers are those of the primary condition (harmful pairs; natural length unless the figure says
otherwise), smallest to largest over the pairs of models.
"""

from collections.abc import Callable

import pandas as pd

from actshift.report.point import counted, spread
from actshift.report.tables import Tables, select
from actshift.studies.localization.figures.rows import condition_of, primary

_FORWARD = {"direction": "forward"}


def seen(name: str, tables: Tables) -> str:
    """The sentence of one figure; empty where its table has no rows to speak of.

    Args:
        name: of the figure.
        tables: table name -> rows.
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
            f"At the last layer all positions move {spread(whole['effect'])} nats, the last prompt "
            f"token {spread(token['effect'])}; the gap between the models is {spread(rows['gap'])}"
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
            f"at {where} of the last layer donors on another pair do {shuffled} of the patch, "
            f"donors on the other condition {other} and noise {noise}"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _interpolation(rows: pd.DataFrame) -> str:
    steps = _pooled(select(rows, positions="all", **_FORWARD)).dropna(subset=["step"])
    smallest = steps.groupby("pair")["step"].min()
    return (
        f"Averaged over layers the tuned states' effect rises with every step in "
        f"{_of_pairs(steps, steps['step_low'] > 0)}; the smallest step is {spread(smallest)} nats"
    )


def _sources(rows: pd.DataFrame) -> str:
    last = _last(select(rows, positions="completion", **_FORWARD))
    own, chosen, rejected, contrast = (
        spread(select(last, source=name)["effect"])
        for name in ("donor", "chosen", "rejected", "contrast")
    )
    return (
        f"At the last layer states read on the chosen answer do {chosen} nats, on the rejected "
        f"one {rejected}, their difference {contrast}, and each side's own {own}"
    )


def _low_rank(rows: pd.DataFrame) -> str:
    four = _pooled(select(rows, positions="all", rank=4, **_FORWARD))
    kept, alone = (select(four, keep_rest=keep) for keep in (True, False))
    shift, states, random = (
        spread(select(kept, basis=name)["of_full"]) for name in ("shift", "states", "random")
    )
    return (
        f"Four directions carry, of the full patch, {shift} (shift), {states} (tuned states) and "
        f"{random} (random) with the rest kept; the tuned part alone does "
        f"{spread(select(alone, basis='states')['of_full'])} times as much as the full patch, and "
        f"Gaussian noise {spread(four['noise_of_full'])} times"
    )


def _positions(rows: pd.DataFrame) -> str:
    token = select(rows, positions="last_prompt", **_FORWARD)
    inside = _of_pairs(token, token["interior"] == 1)
    return (
        f"At the last prompt token the tuned states do at most {spread(token['peak_share'])} of "
        f"the gap, at an interior layer in {inside}, and the last layer does "
        f"{spread(token['edge_over_peak'])} of that"
    )


def _swaps(rows: pd.DataFrame) -> str:
    units = rows[rows["part"].isin(["embeddings", "block", "head"])]
    parts = []
    for operation, words in (("insert", "put into the base"), ("remove", "taken from the tuned")):
        mine = select(units, operation=operation).dropna(subset=["share"])
        top = mine.loc[mine.groupby("pair")["share"].idxmax()]
        names = [
            str(part) if pd.isna(layer) else f"block {layer:g}"
            for part, layer in zip(top["part"], top["layer"], strict=True)
        ]
        which = ", ".join(dict.fromkeys(names))
        total = spread(mine.groupby("pair")["share"].sum())
        parts.append(f"{words}: {spread(top['share'])} of the gap ({which}), all together {total}")
    return f"Largest unit {'; '.join(parts)}"


def _distances(rows: pd.DataFrame) -> str:
    last, low = _last(rows), rows[rows["layer"] == 0]
    chosen = select(last, position="last_chosen")
    first_norm = select(low, position="last_chosen").set_index("pair")["norm"]
    growth = chosen.set_index("pair")["norm"] / first_norm
    return (
        f"At the last chosen token the two models' states are {spread(chosen['norm'])} apart at "
        f"the last layer, {spread(growth)} times the first layer's"
    )


def _lasso(rows: pd.DataFrame) -> str:
    cell = {"position": "last_chosen", "target": "gap", "model": "lasso", "folds": "cluster"}
    fits = select(rows, **cell).drop_duplicates("pair")
    return (
        f"For the gap the lasso keeps {spread(fits['support'])} layers; its R² on unseen clusters "
        f"is {spread(fits['r2_out'])}, above zero with its interval in "
        f"{_of_pairs(fits, fits['r2_out_low'] > 0)}"
    )


def _stability(rows: pd.DataFrame) -> str:
    cells = select(rows, position="last_chosen", target="gap").drop_duplicates("pair")
    return (
        f"For the gap {spread(cells['stable_layers'])} layers are chosen beyond chance, "
        f"{spread(cells['distance_to_peak'])} layers from the largest patch"
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
