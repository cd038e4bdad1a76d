"""Figures of content, of maps between models, and of donors and receivers."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from actshift.report.panels import PAGE_WIDTH, empty_figure, legend, no_data, pairs_of, short
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Stroke
from actshift.report.tables import select
from actshift.studies.misalignment.figures.panels import (
    MARGIN,
    PUBLISHED,
    at_chosen,
    counts_label,
    dot,
    dot_grid,
    heldout,
    neutral,
    ordered_pairs,
    specific,
    text_color,
)
from actshift.studies.misalignment.kinds import ACROSS, INSECURE
from actshift.studies.misalignment.tables.topology import models_of

_GAINED = Stroke(RED, "o", "", "gain in repaired answers")
_SELF = Stroke(BLACK, "|", "", "v_insecure on insecure")
_LESS = Stroke(BLUE, "s", "", "v_insecure on insecure, minus this")
_EQUAL: dict[str, Any] = {
    "color": GREY, "alpha": 0.25, "linewidth": 8, "solid_capstyle": "butt",
    "label": "within 10 points: no difference",
}  # fmt: skip


def steering_content(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """What v does to adapters of other content, and what their directions do to insecure."""
    rows = heldout(table)
    pairs = pairs_of(rows)
    cells = {pair: _contents(select(rows, pair=pair), pair, specificity) for pair in pairs}
    if not any(cells.values()):
        return empty_figure("no edit of an adapter other than insecure")
    titles = {
        "gain in repaired answers": "share, held-out questions",
        "difference from v_insecure on insecure": "share",
        "dose": "shift over insecure's",
    }
    labels = {pair: [name for name, _ in cells[pair]] for pair in pairs}
    figure, axes = dot_grid(pairs, titles, labels)
    for row, pair in enumerate(pairs):
        for at, (_, one) in enumerate(cells[pair]):
            dot(axes[row, 0], at, one, "gain_insecure", _SELF, markersize=11)
            dot(axes[row, 0], at, one, "gain", _GAINED)
            dot(axes[row, 1], at, one, "difference", _LESS)
            dot(axes[row, 2], at, one, "dose_ratio", Stroke(GREEN, "D", "", ""))
        for axis in axes[row, :2]:
            axis.axvline(0, color=BLACK, linewidth=0.8)
        axes[row, 1].axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.25, linewidth=0, zorder=0)
        axes[row, 2].axvline(1, color=GREY, linewidth=0.8, linestyle="--")
        counts_label(axes[row, 0], pair, select(rows, pair=pair))
    axes[0, 2].set_xlim(left=0)  # once all are drawn: it ends the search for a range
    entries = [stroke.line() for stroke in (_GAINED, _SELF, _LESS)]
    entries[1]["markersize"] = 11
    legend(figure, [*entries, _EQUAL])
    return figure


def _contents(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None
) -> list[tuple[str, pd.DataFrame]]:
    """Receiver and source of each row of the published edit, at its coefficient."""
    subset = at_chosen(rows, pair, specificity)
    if subset.empty:
        return []
    cells = subset[["receiver", "source"]].drop_duplicates().itertuples(index=False)
    return [
        (f"v_{source} on {receiver}", select(subset, receiver=receiver, source=source))
        for receiver, source in cells
        if (receiver, source) != (INSECURE, INSECURE)
    ]  # fmt: skip


#: Prompts that a map is fitted on.
_FITS = {
    "neutral": Stroke(BLUE, "o", "", "fitted on neutral prompts"),
    "with_code": Stroke(ORANGE, "s", "", "and on code questions"),
}
_OTHER_FIT = Stroke(GREEN, "D", "", "other prompts")
_NULL = {"color": BLACK, "marker": "|", "markersize": 10, "linestyle": ""}


def ridge_maps(table: pd.DataFrame) -> Figure:
    """Held-out R² and cosine of every ordered pair's map at the last layer, beside its nulls."""
    order = list(dict.fromkeys(table["donor"].astype(str)))
    named = set(table["receiver"].astype(str))
    receivers = [name for name in [*order, *sorted(named - set(order))] if name in named]
    last = table[table["layer"] == table.groupby(["donor", "receiver"])["layer"].transform("max")]
    donors = {
        name: list(dict.fromkeys(select(last, receiver=name)["donor"].astype(str)))
        for name in receivers
    }
    labels = {name: [f"from {short(one, 20)}" for one in donors[name]] for name in receivers}
    titles = {
        "R² on clusters that were not fitted on": "share of variance",
        "cosine of the mapped v with the receiver's own": "cosine",
    }
    figure, axes = dot_grid(receivers, titles, labels)
    fits = [str(one) for one in table["fit_on"].unique()]
    for row, name in enumerate(receivers):
        for at, donor in enumerate(donors[name]):
            subset = select(last, receiver=name, donor=donor)
            for place, fit in enumerate(fits):
                y = at + 0.34 * (place - (len(fits) - 1) / 2)
                _map_row(axes[row], y, select(subset, fit_on=fit), _FITS.get(fit, _OTHER_FIT))
        for axis in axes[row]:
            axis.axvline(0, color=BLACK, linewidth=0.8)
        counts_label(axes[row, 0], f"to {name}", select(last, receiver=name))
    strokes = [_FITS.get(fit, _OTHER_FIT)._replace(label=_fit_name(fit)) for fit in fits]
    null = {**_NULL, "label": "95th percentile of its null"}
    legend(figure, [*(stroke.line() for stroke in strokes), null])
    return figure


def _fit_name(fit: str) -> str:
    """Prompts of a map in words."""
    return _FITS[fit].label if fit in _FITS else f"fitted on {fit}"


def _map_row(axes: np.ndarray, y: float, rows: pd.DataFrame, stroke: Stroke) -> None:
    """One map in both panels: a mark, and the null it has to pass."""
    if rows.empty:
        return
    for axis, value, null in zip(
        axes, ("r2", "cosine"), ("r2_shuffled_high", "cosine_null_high"), strict=True
    ):
        axis.plot(rows[null].iloc[:1], [y], **{**_NULL, "color": stroke.color})
        dot(axis, y, rows, value, stroke)
    # A cosine counts by its size: its null bounds it on both sides.
    axes[1].plot(-rows["cosine_null_high"].iloc[:1], [y], **{**_NULL, "color": stroke.color})


#: With more models a cell has no room for an interval; the tables have them.
_ROOMY = 5
_GIVES = Stroke(BLUE, "o", "", "as donor")
_TAKES = Stroke(ORANGE, "s", "", "as receiver")


def topology(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """Share of the receiver's spillover removed by each donor, and the margin over its nulls.

    With three seeds a family, below: the mean over seeds, and who gives and who takes.
    """
    pairs = ordered_pairs(table)
    cell = 0.75 if len(pairs) <= _ROOMY else 0.5
    heights = [cell * len(pairs) + 2.2]
    means = _family_means(table, pairs)
    if means is not None:
        heights.append(0.6 * len(means) + 2.0)
    figure = Figure(figsize=(PAGE_WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _models(parts[0], table, specificity, pairs)
    if means is not None:
        _families(parts[1], table, means)
    return figure


def _models(
    figure: SubFigure, table: pd.DataFrame, specificity: pd.DataFrame | None, pairs: list[str]
) -> None:
    axes = figure.subplots(1, 2)
    titles = (
        "share of the receiver's spillover removed",
        "gain in repaired answers beyond the strongest null",
    )
    for axis, title in zip(axes, titles, strict=True):
        _frame(axis, title)
    share = _matrix(table, pairs, "share")
    low = min(0.0, float(np.nanmin(share, initial=0.0)))
    _heat(axes[0], share, pairs, "cividis", (low, 1.0), _intervals(table, pairs, "share"))
    margin = _matrix(specificity, pairs, "margin")
    if specificity is None or np.isnan(margin).all():
        no_data(axes[1])
        return
    marks = _intervals(specificity, pairs, "margin")
    for mark, rows in (
        ("specific", specific(specificity)),
        ("broken", specificity["status"] == "broken"),
    ):
        marked = _matrix(specificity.assign(marked=rows), pairs, "marked") == 1
        marks = np.where(marked, np.char.add(marks, f"\n{mark}"), marks)
    top = max(MARGIN, float(np.nanmax(np.abs(margin))))
    _heat(axes[1], margin, pairs, "PuOr", (-top, top), marks)


def _families(figure: SubFigure, table: pd.DataFrame, means: pd.DataFrame) -> None:
    """Mean shares of families, and their effects as donor and as receiver."""
    axes = figure.subplots(1, 2)
    test = neutral(select(table, scope=ACROSS)).iloc[0]
    title = f"share removed, mean over {int(test['seeds'])} seeds"
    if pd.notna(test["asymmetry_p"]):
        title += f"; asymmetry p {test['asymmetry_p']:.2g}"
    _frame(axes[0], title)
    grid = means.to_numpy()
    ends = (min(0.0, float(np.nanmin(grid))), 1.0)
    names = [str(name) for name in means.index]
    _heat(axes[0], grid, names, "cividis", ends, np.full(grid.shape, ""))
    effects = neutral(select(table, scope=ACROSS))
    models = models_of(ordered_pairs(table))
    for side, stroke, off in (("donor", _GIVES, -0.12), ("receiver", _TAKES, 0.12)):
        families = [models[str(name)].family for name in effects[side]]
        own = effects.groupby(families)[f"{side}_effect"].first().reindex(means.index)
        places = np.arange(len(own)) + off
        look = {"color": stroke.color, "marker": stroke.marker, "label": stroke.label}
        axes[1].plot(own, places, linestyle="", **look)
    axes[1].axvline(0, color=BLACK, linewidth=0.8)
    axes[1].set_yticks(range(len(names)), names)
    axes[1].set_ylim(len(names) - 0.5, -0.5)
    axes[1].set_title("share = mean + donor + receiver")
    axes[1].set_xlabel("effect on the share removed")
    axes[1].locator_params(axis="x", nbins=6)
    axes[1].legend()


def _family_means(table: pd.DataFrame, pairs: list[str]) -> pd.DataFrame | None:
    """Donor by receiver family, mean over pairs of one seed; None where seeds are too few."""
    rows = neutral(select(table, scope=ACROSS)) if "scope" in table else table.iloc[:0]
    if rows.empty or rows["donor_effect"].isna().all():
        return None
    models = models_of(pairs)
    donor, receiver = ([models[name] for name in rows[side]] for side in ("donor", "receiver"))
    rows = rows.assign(
        donor=[one.family for one in donor],
        receiver=[one.family for one in receiver],
        same=[a.seed == b.seed for a, b in zip(donor, receiver, strict=True)],
    )
    order = list(dict.fromkeys(models[name].family for name in pairs))
    grid = select(rows, same=True).pivot_table("share", "donor", "receiver")
    return grid.reindex(index=order, columns=order)


def _frame(axis: Axes, title: str) -> None:
    axis.grid(visible=False)
    axis.set_facecolor("#eeeeee")
    axis.set_title(title)
    axis.set_xlabel("receiver")
    axis.set_ylabel("donor")


def _matrix(table: pd.DataFrame | None, pairs: list[str], value: str) -> np.ndarray:
    """Donor by receiver; NaN where the table has no such row."""
    grid = np.full((len(pairs), len(pairs)), np.nan)
    if table is None:
        return grid
    rows = neutral(select(table, protocol=PUBLISHED) if "protocol" in table else table)
    for donor, receiver, one in zip(rows["donor"], rows["receiver"], rows[value], strict=True):
        if donor in pairs and receiver in pairs:
            grid[pairs.index(donor), pairs.index(receiver)] = one
    return grid


def _intervals(table: pd.DataFrame | None, pairs: list[str], value: str) -> np.ndarray:
    """The intervals of a matrix as text; none where cells are small."""
    if len(pairs) > _ROOMY:
        return np.full((len(pairs), len(pairs)), "", dtype="U40")
    low, high = (_matrix(table, pairs, f"{value}_{end}") for end in ("low", "high"))
    return np.array([
        [f"{a:.2f} to {b:.2f}" for a, b in zip(*row, strict=True)]
        for row in zip(low, high, strict=True)
    ], dtype="U40")  # fmt: skip


def _heat(
    axis: Axes, grid: np.ndarray, pairs: list[str], colors: str,
    ends: tuple[float, float], marks: np.ndarray,
) -> None:  # fmt: skip
    """A matrix, donors down and receivers across, with its numbers and marks."""
    low, high = ends
    image = axis.imshow(grid, cmap=mpl.colormaps[colors], vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        if np.isnan(value):
            continue
        look = {"color": text_color(image, value), "ha": "center", "fontsize": 8.5}
        axis.text(j, i, f"{value:.2f}", va="bottom", **look)
        axis.text(j, i, str(marks[i, j]).strip(), va="top", **{**look, "fontsize": 6.5})
    names = [short(pair, 16) for pair in pairs]
    many = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > _ROOMY else {}
    axis.set_xticks(range(len(pairs)), names, **many)
    axis.set_yticks(range(len(pairs)), names)
    axis.figure.colorbar(image, ax=axis, shrink=0.9, aspect=25)
