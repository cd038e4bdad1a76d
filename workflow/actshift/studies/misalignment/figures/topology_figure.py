"""Figure of donors and receivers: what a direction does in every model, and who gives or takes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from actshift.report.panels import PAGE_WIDTH, no_data, short
from actshift.report.style import BLACK, BLUE, ORANGE, Stroke
from actshift.report.tables import select
from actshift.studies.misalignment.figures.panels import text_color
from actshift.studies.misalignment.figures.rows import (
    MARGIN,
    PUBLISHED,
    neutral,
    ordered_pairs,
    specific,
)
from actshift.studies.misalignment.kinds import ACROSS
from actshift.studies.misalignment.tables.topology import models_of

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
    """Every donor in every receiver."""
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
    passed = _matrix(specificity.assign(passed=specific(specificity)), pairs, "passed") == 1
    broken = specificity.assign(broken=specificity["status"] == "broken")
    fell = _matrix(broken, pairs, "broken") == 1
    marks = _intervals(specificity, pairs, "margin")
    marks = np.where(passed, np.char.add(marks, "\nspecific"), marks)
    marks = np.where(fell, np.char.add(marks, "\nbroken"), marks)
    top = max(MARGIN, float(np.nanmax(np.abs(margin))))
    _heat(axes[1], margin, pairs, "PuOr", (-top, top), marks)


def _families(figure: SubFigure, table: pd.DataFrame, means: pd.DataFrame) -> None:
    """Mean shares of families, and their effects as donor and as receiver."""
    axes = figure.subplots(1, 2)
    told = neutral(select(table, scope=ACROSS)).iloc[0]
    title = f"share removed, mean over {int(told['seeds'])} seeds"
    if pd.notna(told["asymmetry_p"]):
        title += f"; asymmetry p {told['asymmetry_p']:.2g}"
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
