"""Grids of small panels: one row a pair, shared by all figures."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from actshift.report.style import BLACK, GREY

#: Inches; eleven wide fits a landscape page and a laptop's window.
PAGE_WIDTH = 11.0


def pairs_of(table: pd.DataFrame) -> list[str]:
    """Pair names in the order of the table, which is the order of the config."""
    return [str(pair) for pair in table["pair"].unique()] if len(table) else []


def short(name: str, length: int = 26) -> str:
    """A name that fits beside a panel."""
    return name if len(name) <= length else name[: length - 1] + "…"


def sized(name: str, rows: pd.DataFrame) -> str:
    """A pair's name above the prompts and clusters that its rates rest on."""
    if rows.empty:
        return short(name)
    size = f"n {rows['n'].iloc[0]:g}"
    return f"{short(name)}\n{size}, {rows['clusters'].iloc[0]:g} clusters"


def empty_figure(reason: str) -> Figure:
    """A figure that says why there is nothing to draw: every declared output exists."""
    figure = Figure(figsize=(PAGE_WIDTH, 1.6))
    figure.text(0.5, 0.5, reason, ha="center", va="center", color=GREY, fontsize=11)
    return figure


def pair_rows(
    pairs: Sequence[str],
    titles: Sequence[str],
    *,
    ylabel: str,
    height: float = 1.85,
    sharey: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A figure with one row a pair and one column a title; y shared within a row unless told.

    Returns the figure and its axes, [pair, column].
    """
    figure = Figure(figsize=(PAGE_WIDTH, height * len(pairs) + 1.2), layout="constrained")
    axes = figure.subplots(
        len(pairs), len(titles), squeeze=False, sharey="row" if sharey else False
    )
    for column, title in enumerate(titles):
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel("layer (block output)")
    for row, pair in enumerate(pairs):
        axes[row, 0].set_ylabel(f"{short(pair)}\n{ylabel}")
    return figure, axes


def pair_tiles(
    pairs: Sequence[str], *, ylabel: str, xlabel: str, height: float = 2.6
) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a pair, at most four in a row, y shared by all.

    Returns the figure and one axes a pair, in the order of `pairs`.
    """
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    # A single panel as wide as the page would exaggerate every slope.
    width = PAGE_WIDTH if columns > 2 else 5.0 * columns
    figure = Figure(figsize=(width, height * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        axis.set_title(short(pair))
        axis.set_xlabel(xlabel)
    for axis in axes[::columns]:
        axis.set_ylabel(ylabel)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    return figure, list(axes[: len(pairs)])


def whole_layers(axis: Axes) -> None:
    """Ticks at whole layers only: there is no layer 2.5."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def from_zero(axes: Iterable[Axes], *, least: float = 0.0) -> None:
    """Let y run from 0 to above all data of panels that share it; called once all are drawn.

    A limit set on one panel of a shared axis ends autoscaling for the rest and cuts their lines.
    """
    panels = list(axes)
    top = max((axis.dataLim.ymax for axis in panels if axis.lines), default=0.0)
    for axis in panels:
        axis.set_ylim(0, max(top * 1.1, least))


def thinned(rows: pd.DataFrame) -> dict[str, Any]:
    """Marker spacing for a deep model: some sixteen markers a line, never a solid band."""
    return {"markevery": max(1, -(-len(rows) // 16))}


def legend(figure: Figure, entries: Sequence[dict[str, Any]], *, columns: int = 6) -> None:
    """One legend above the panels, from line settings."""
    make: Callable[..., Line2D] = Line2D
    handles = [make([], [], **entry) for entry in entries]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(columns, len(handles)),
        handlelength=3,
    )


def no_data(axis: Axes, text: str = "no rows") -> None:
    """Say inside a panel that it is empty on purpose."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)
    axis.grid(visible=False)


def note(axis: Axes, text: str) -> None:
    """A small remark in a panel's upper left corner."""
    axis.text(
        0.02, 0.97, text, transform=axis.transAxes, ha="left", va="top", color=BLACK, fontsize=7.5
    )
