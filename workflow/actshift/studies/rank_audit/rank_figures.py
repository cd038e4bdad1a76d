"""Figures of how many directions a shift needs: rank, cumulative variance, inflation, size."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from actshift.report.panels import (
    from_zero,
    legend,
    no_data,
    pair_rows,
    pair_tiles,
    pairs_of,
    thinned,
    whole_layers,
)
from actshift.report.point import RANK_FLOOR
from actshift.report.style import BLACK, GREY, INPUTS, MATRICES, MATRIX_TITLES
from actshift.report.tables import select
from actshift.vocab import DEFAULT_EPS
from actshift.vocab import MATRICES as MATRIX_NAMES

_HEAT_BOUNDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


def rank_by_layer(rank: pd.DataFrame) -> Figure:
    """rank_eps of the four matrices by layer; harmful and harmless, uncentred and centred."""
    pairs = pairs_of(rank)
    figure, axes = pair_rows(pairs, [MATRIX_TITLES[m] for m in MATRIX_NAMES], ylabel="rank")
    for row, pair in enumerate(pairs):
        for column, matrix in enumerate(MATRIX_NAMES):
            rows = select(rank, pair=pair, matrix=matrix, category="all")
            _rank_panel(axes[row, column], rows)
        from_zero(axes[row], least=2.0)
    entries = [
        stroke.line(label=f"{stroke.label}, {kind}", **changes)
        for stroke in INPUTS.values()
        for kind, changes in (("uncentred", {}), ("centred", _CENTRED))
    ]
    legend(figure, entries)
    return figure


_CENTRED: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white", "linewidth": 1.1}


def _rank_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """One pair and matrix."""
    if rows.empty:
        no_data(axis)
    # Small ranks coincide: the larger squares go below, so that both markers stay visible.
    for inputs, size in (("harmless", 6.5), ("harmful", 3.5)):
        part = select(rows, inputs=inputs) if len(rows) else rows
        line = INPUTS[inputs].line(markersize=size, **thinned(part))
        if len(part):
            axis.plot(part["layer"], part["rank_eps_centered"], **{**line, **_CENTRED})
            axis.plot(part["layer"], part["rank_eps"], **line)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    whole_layers(axis)


def cumulative_variance(table: pd.DataFrame) -> Figure:
    """Share of a shift's energy in its first k directions: a heat map over layer and k."""
    pairs = pairs_of(table)
    titles = [MATRIX_TITLES[m] for m in MATRIX_NAMES] + ["template, centred\n(= did, centred)"]
    columns = [(m, "share") for m in MATRIX_NAMES] + [("template", "share_centered")]
    figure, axes = pair_rows(pairs, titles, ylabel="directions k", height=1.9)
    cmap = _heat_map()
    image = None
    for row, pair in enumerate(pairs):
        harmful = select(table, pair=pair, inputs="harmful")
        harmful = harmful.loc[harmful["k"] <= _last_k(harmful)]
        for column, (matrix, value) in enumerate(columns):
            rows = select(harmful, matrix=matrix)
            image = _heat_panel(axes[row, column], rows, value, cmap) or image
    if image is not None:
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=45, pad=0.02)
        bar.set_label("share of the energy in the first k directions (harmful prompts)")
        bar.set_ticks(list(_HEAT_BOUNDS), labels=[f"{bound:g}" for bound in _HEAT_BOUNDS])
    line = {"color": "white", "linewidth": 2, "path_effects": _outline()}
    legend(figure, [{**line, "label": f"first k that holds {1 - DEFAULT_EPS:.0%}"}])
    return figure


def _heat_map() -> tuple[Colormap, BoundaryNorm]:
    """Cividis in steps: a reader can name the share of a cell."""
    return mpl.colormaps["cividis"], BoundaryNorm(_HEAT_BOUNDS, 256)


def _outline() -> list[AbstractPathEffect]:
    """A dark rim, so that the white line is seen on light cells too."""
    return [Stroke(linewidth=3.6, foreground=BLACK), Normal()]


def _last_k(rows: pd.DataFrame) -> int:
    """The k beyond which every uncentred row holds 99 %, within 5 .. 24."""
    open_rows = rows.loc[(rows["share"] < 0.99) | (rows["share_centered"] < 0.95)]
    last = int(open_rows["k"].max()) + 1 if len(open_rows) else 5
    return min(max(last, 5), 24)


def _heat_panel(
    axis: Axes, rows: pd.DataFrame, value: str, cmap: tuple[Colormap, BoundaryNorm]
) -> ScalarMappable | None:
    """Cells by index, so that any subset of layers and of k is drawn evenly."""
    axis.grid(visible=False)
    if rows.empty:
        no_data(axis)
        return None
    grid = rows.pivot_table(index="k", columns="layer", values=value)
    layers, ks = grid.columns.to_numpy(), grid.index.to_numpy()
    colors, norm = cmap
    image = axis.imshow(
        grid.to_numpy(), origin="lower", aspect="auto", interpolation="nearest",
        cmap=colors, norm=norm, extent=(-0.5, len(layers) - 0.5, 0.5, len(ks) + 0.5),
    )  # fmt: skip
    enough = grid.to_numpy() >= 1 - DEFAULT_EPS
    first = np.where(enough.any(axis=0), enough.argmax(axis=0) + 1.0, len(ks) + 0.5)
    edges = np.arange(len(layers) + 1) - 0.5
    axis.stairs(first, edges, baseline=None, color="white", linewidth=2, path_effects=_outline())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _label(layers, at)))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda at, _: _label(ks, at - 1)))
    return image


def _label(values: np.ndarray, position: float) -> str:
    """The value at an index, nothing outside the grid."""
    index = round(position)
    return str(values[index]) if 0 <= index < len(values) and index == position else ""


def inflation_by_layer(table: pd.DataFrame) -> Figure:
    """Naive over template rank at equal n on the log scale, with the stability range."""
    pairs = pairs_of(table)
    figure, axes = pair_tiles(
        pairs, ylabel="naive rank / template rank", xlabel="layer (block output)"
    )
    for axis, pair in zip(axes, pairs, strict=True):
        axis.axhline(1, color=GREY, linewidth=1)
        for inputs, stroke in INPUTS.items():
            rows = select(table, pair=pair, inputs=inputs)
            if len(rows):
                _ratio_series(
                    axis, rows, stroke.line(label=None), side=0.08 * (inputs == "harmless")
                )
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        whole_layers(axis)
    floor = {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
    entries = [stroke.line(label=f"{stroke.label}, stability range") for stroke in INPUTS.values()]
    legend(
        figure, [*entries, {**floor, "label": f"open: a rank below {RANK_FLOOR}, not decidable"}]
    )
    return figure


def _ratio_series(axis: Axes, rows: pd.DataFrame, line: dict[str, Any], *, side: float) -> None:
    """Ratios with their range; layers at the rank floor are drawn open."""
    x = rows["layer"].to_numpy() + side
    ratio = rows["ratio"].to_numpy()
    low, high = np.exp(rows["log_ratio_low"]), np.exp(rows["log_ratio_high"])
    color, marker = line["color"], line["marker"]
    axis.plot(x, ratio, color=color, linewidth=0.9)
    axis.vlines(x, low, high, color=color, linewidth=1.3)
    floor = (rows[["rank_naive", "rank_template"]].min(axis=1) < RANK_FLOOR).to_numpy()
    for mask, face in ((~floor, color), (floor, "white")):
        axis.plot(x[mask], ratio[mask], linestyle="", marker=marker, color=color,
                  markerfacecolor=face, markersize=5)  # fmt: skip


def shift_by_layer(rank: pd.DataFrame) -> Figure:
    """Size of the shift relative to the activations, by layer, for the four matrices."""
    pairs = pairs_of(rank)
    figure, axes = pair_tiles(
        pairs, ylabel="‖M‖ / ‖H‖ (harmful prompts)", xlabel="layer (block output)"
    )
    for axis, pair in zip(axes, pairs, strict=True):
        for matrix, stroke in MATRICES.items():
            rows = select(rank, pair=pair, matrix=matrix, inputs="harmful", category="all")
            if len(rows):
                axis.plot(
                    rows["layer"], rows["relative_shift_norm"], **stroke.line(**thinned(rows))
                )
        whole_layers(axis)
    from_zero(axes)
    entries = [stroke.line() for stroke in MATRICES.values()]
    entries[2]["label"] = "aligned (template shift inside the tuned model)"
    legend(figure, entries)
    return figure
