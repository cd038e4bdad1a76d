"""Figure of single directions: what each does alone, in which order, and together."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from actshift.maths.ordering import STABLE_COSINE
from actshift.report.panels import PAGE_WIDTH, legend, no_data, note, pairs_of, sized
from actshift.report.style import BLACK, BLUE, GREY, RED
from actshift.report.tables import first, select

_BAND, _FRAME, _EDIT = "narrow", "template", "zero"
_SINGLE_K, _SET_K = 1, 5
_RANDOM: dict[str, Any] = {"color": GREY, "alpha": 0.3, "linewidth": 0}
_UNSTABLE: dict[str, Any] = {
    "color": BLUE, "marker": "s", "linestyle": "", "markersize": 5, "markerfacecolor": "white",
    "zorder": 3,
}  # fmt: skip
_HARMLESS: dict[str, Any] = {"color": RED, "linestyle": "--", "linewidth": 1.4}


def direction_bars(
    directions: pd.DataFrame, ordering: pd.DataFrame | None, sweep: pd.DataFrame | None
) -> Figure:
    """Change of refusal by single direction, causal against variance order, sets of five."""
    cell = {"band": _BAND, "frame": _FRAME, "edit": _EDIT}
    rows = select(directions, **cell)
    pairs = pairs_of(directions)
    figure = Figure(figsize=(PAGE_WIDTH, 2.3 * len(pairs) + 1.4), layout="constrained")
    axes = figure.subplots(
        len(pairs), 3, squeeze=False, gridspec_kw={"width_ratios": (1.15, 0.75, 1.5)}
    )
    titles = ("each direction alone", "causal against variance order", "sets of the first five")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for row, pair in enumerate(pairs):
        of_pair = select(rows, pair=pair)
        singles = select(of_pair, kind="single").copy()
        singles["direction"] = singles["directions"].astype(int)
        singles = singles.sort_values("direction")
        controls = select(sweep, pair=pair, protocol="heldout", band=_BAND, edit=_EDIT)
        axes[row, 0].set_ylabel(f"{sized(pair, of_pair)}\nchange of refusal")
        _bars(axes[row, 0], singles, controls)
        _order(axes[row, 1], singles, select(ordering, pair=pair, **cell))
        _sets(axes[row, 2], of_pair, controls)
        _equal_limits(axes[row, [0, 2]])
    for axis, label in zip(axes[-1], ("direction u_i", "variance order", "directions removed"),
                           strict=True):  # fmt: skip
        axis.set_xlabel(label)
    legend(figure, _entries(), columns=3)
    return figure


def _entries() -> list[dict[str, Any]]:
    """The legend's lines."""
    return [
        {"color": BLUE, "marker": "s", "linestyle": "", "markersize": 7,
         "label": "change of refusal, 95 % cluster interval"},
        {**_UNSTABLE,
         "label": f"hatched or open: unstable (|cos| < {STABLE_COSINE:g}) or a broken cell"},
        {**_RANDOM, "linewidth": 8, "label": "random draws, 5th to 95th percentile"},
        {**_HARMLESS, "label": "as many directions of the harmless shift"},
        {"color": BLACK, "marker": "D", "linestyle": "", "markerfacecolor": "white",
         "label": "sum of the singles (no interaction)"},
        {"color": RED, "linewidth": 1, "label": "pair in the wrong order, Holm-corrected"},
    ]  # fmt: skip


def _controls(axis: Axes, controls: pd.DataFrame, k: int) -> None:
    """Range of random draws and the harmless shift's own directions at this k, as changes."""
    random = select(controls, frame="random", k=k) if len(controls) else controls
    if len(random):
        plain = first(random, "plain_refusal")
        low, high = first(random, "random_refusal_low"), first(random, "random_refusal_high")
        axis.axhspan(low - plain - 0.004, high - plain + 0.004, **_RANDOM)
    harmless = select(controls, frame="template_harmless", k=k) if len(controls) else controls
    if len(harmless):
        axis.axhline(first(harmless, "refusal_change"), **_HARMLESS)


def _bars(axis: Axes, singles: pd.DataFrame, controls: pd.DataFrame) -> None:
    """A bar a direction in the order of variance."""
    axis.axhline(0, color=BLACK, linewidth=0.8)
    axis.grid(visible=False, axis="x")
    if singles.empty:
        no_data(axis)
        return
    _controls(axis, controls, _SINGLE_K)
    for _, row in singles.iterrows():
        stable = _says_something(row)
        axis.bar(
            row["direction"], row["refusal_change"], width=0.7, edgecolor=BLUE,
            facecolor=BLUE if stable else "white", hatch="" if stable else "////", linewidth=1,
        )  # fmt: skip
        if not stable:  # a bar of no height shows no hatch
            axis.plot(row["direction"], row["refusal_change"], **_UNSTABLE)
    axis.vlines(
        singles["direction"], singles["refusal_change_low"], singles["refusal_change_high"],
        color=BLACK, linewidth=1.2,
    )  # fmt: skip
    axis.set_xticks(singles["direction"].tolist())


def _decides(row: pd.Series) -> bool:
    """Whether the cell's controls held; an answer nobody judged may still count refusals."""
    return row.get("status", "decided") in ("decided", "no judge")


def _says_something(row: pd.Series) -> bool:
    """Whether the direction is the same one over resampled prompts, in a cell that decides."""
    return _decides(row) and row["self_cosine_min"] >= STABLE_COSINE


def _order(axis: Axes, singles: pd.DataFrame, ordering: pd.DataFrame) -> None:
    """Place in the order of lost refusals against place in the order of variance."""
    if singles.empty:
        no_data(axis)
        return
    causal = rankdata(singles["refusal_change"].to_numpy())
    place = dict(zip(singles["direction"], causal, strict=True))
    last = len(singles)
    axis.plot([1, last], [1, last], color=GREY, linestyle="--", linewidth=1)
    tests = select(ordering, test="inversion") if len(ordering) else ordering
    for _, row in tests.iterrows():
        if str(row["exceeds"]).lower() == "true":
            ends = [int(row["earlier"]), int(row["later"])]
            axis.plot(ends, [place[end] for end in ends], color=RED, linewidth=1, alpha=0.8)
    stable = np.array([_says_something(row) for _, row in singles.iterrows()])
    variance = singles["direction"].to_numpy()
    for mask, face in ((stable, BLUE), (~stable, "white")):
        axis.plot(variance[mask], causal[mask], "o", color=BLUE, markerfacecolor=face, markersize=5)
    axis.set(xlim=(0.3, last + 0.7), ylim=(last + 0.7, -0.9), ylabel="causal order")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(tests):
        tau = first(tests, "kendall_tau")
        note(axis, f"Kendall's τ {tau:.2f} (not tested)")


def _sets(axis: Axes, rows: pd.DataFrame, controls: pd.DataFrame) -> None:
    """Pairs, leave-one-out sets and all five, beside the sum of their singles' changes."""
    axis.axhline(0, color=BLACK, linewidth=0.8)
    sets = rows[rows["kind"] != "single"]
    if sets.empty:
        no_data(axis)
        return
    _controls(axis, controls, _SET_K)
    x = np.arange(len(sets))
    axis.vlines(
        x, sets["refusal_change_low"], sets["refusal_change_high"], color=BLUE, linewidth=1.4
    )
    sound = np.array([_decides(row) for _, row in sets.iterrows()])
    for mask, face in ((sound, BLUE), (~sound, "white")):
        y = sets["refusal_change"].to_numpy(dtype=float)
        axis.plot(x[mask], y[mask], "s", color=BLUE, markerfacecolor=face, markersize=4.5)
    total = np.maximum(sets["refusal_change"] - sets["interaction"], -1.0)
    axis.plot(x + 0.22, total, "D", color=BLACK, markerfacecolor="white", markersize=3.6)
    axis.set_xticks(x, [_set_name(row) for _, row in sets.iterrows()], rotation=90, fontsize=7)
    axis.grid(visible=False, axis="x")


def _set_name(row: pd.Series) -> str:
    """`1+2`, `no 3` for what is left out of the first five, `all five`."""
    if row["kind"] == "all_five":
        return "all five"
    if row["kind"] == "leave_one_out":
        left = set("12345") - set(str(row["directions"]).split("+"))
        return f"no {''.join(sorted(left))}"
    return str(row["directions"])


def _equal_limits(axes: np.ndarray) -> None:
    """One scale for a pair's bars and sets, from all that is drawn."""
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(max(low, -1.08), min(high, 1.08))
