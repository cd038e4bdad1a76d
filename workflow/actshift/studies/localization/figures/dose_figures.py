"""Figures of how much of a state is patched: interpolation, low rank, and which positions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from actshift.report.panels import legend, no_data
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke
from actshift.report.tables import first, published_value, select, values
from actshift.studies.localization.figures.panels import (
    GAP,
    POSITIONS,
    ZERO,
    Panel,
    below,
    curve,
    gap_line,
    panels_by,
    rows_of_panels,
)

_LAYERS = (
    Stroke(SKY, "v", "--", "first layer"),
    Stroke(GREEN, "D", "-.", "a third up"),
    Stroke(ORANGE, "s", ":", "two thirds up"),
    Stroke(RED, "^", "--", "last layer"),
)
_MEAN = Stroke(BLACK, "o", "-", "mean over layers, with its interval")


def patch_interpolation(table: pd.DataFrame) -> Figure:
    """Effect against the share of the donor's states that is mixed in."""
    ways = {way: {"direction": way} for way in ("forward", "reverse")}
    panels = panels_by(table, ways, length="natural", positions="all")
    figure, cells = rows_of_panels(table, panels, unit="effect (nats)")
    for axis, panel, pair in cells:
        rows = panel.of(table, pair)
        gap_line(axis, rows)
        for layer, stroke in zip(_four_layers(rows), _LAYERS, strict=False):
            of_layer = rows[rows["layer"] == layer].sort_values("alpha")
            axis.plot(
                of_layer["alpha"], of_layer["effect"], **stroke.line(linewidth=1, markersize=3)
            )
        if len(rows):
            curve(axis, rows[rows["layer"].isna()], "effect", _MEAN, x="alpha")
        else:
            no_data(axis)
        below(axis, panel, cells, "share of the donor's states, alpha")
    legend(figure, [_MEAN.line(), *(stroke.line() for stroke in _LAYERS), GAP], columns=3)
    return figure


def _four_layers(rows: pd.DataFrame) -> list[int]:
    """First, a third up, two thirds up and last of the table's layers; fewer where it has fewer."""
    if rows.empty:
        return []
    layers = np.unique(values(rows, "layer"))
    places = np.unique(np.linspace(0, len(layers) - 1, 4).round().astype(int))
    return [int(layers[place]) for place in places]


_BASES = {
    "shift": Stroke(BLUE, "o", "-", "directions of the shift"),
    "states": Stroke(ORANGE, "s", "--", "of the tuned states (published)"),
    "base_states": Stroke(GREEN, "D", "-.", "of the base states (control)"),
    "random": Stroke(GREY, "x", ":", "random (control)"),
}
_NOISE = Stroke(PINK, "", "--", "Gaussian noise (control)")
_PUBLISHED = Stroke(RED, "*", "", "published, layer 9 of 16, k = 4")


def patch_low_rank(table: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Effect of rank-k patches over the full patch's, beside the variance that k holds."""
    parts = {"rest kept": {"keep_rest": True}, "part alone": {"keep_rest": False}}
    panels = panels_by(table, parts, direction="forward", positions="all", length="natural")
    variance = Panel("variance held", {**panels[0].cell})
    figure, cells = rows_of_panels(
        table, [*panels, variance], unit="of the full patch", sharey=False
    )
    marks = _published_marks(published)
    for axis, panel, pair in cells:
        rows = panel.of(table, pair)
        rows = rows[rows["layer"].isna()] if len(rows) else rows
        axis.axhline(1, **{**GAP, "label": None})
        _rank_curves(axis, rows, "share_of_variance" if panel is variance else "of_full")
        if panel is not variance and len(rows) and len(values(rows, "noise_of_full")):
            axis.axhline(values(rows, "noise_of_full")[0], **_NOISE.line(label=None))
        reading = "variance" if panel is variance else str(panel.cell["keep_rest"])
        if reading in marks:
            axis.plot([4], [marks[reading]], **_PUBLISHED.line(markersize=9, label=None, zorder=5))
        below(axis, panel, cells, "directions patched, k")
    full = {**GAP, "label": "the full patch, all variance"}
    stars = [_PUBLISHED.line(markersize=9)] if marks else []
    strokes = [stroke.line() for stroke in (*_BASES.values(), _NOISE)]
    legend(figure, [*strokes, full, *stars], columns=4)
    return figure


def _published_marks(published: pd.DataFrame | None) -> dict[str, float]:
    """Published values at k = 4 by the panel they belong to; none where they are not there."""
    part, full = (
        published_value(published, "low_rank", f"mean_delta_logp_{name}_layer_9")
        for name in ("rank_4", "full")
    )
    marks = {
        "False": part / full,
        "variance": published_value(published, "low_rank", "variance_ratio_rank_4"),
    }
    return {name: value for name, value in marks.items() if np.isfinite(value)}


def _rank_curves(axis: Axes, rows: pd.DataFrame, value: str) -> None:
    """A line a basis over k on a log axis."""
    if rows.empty or not len(values(rows, value)):
        no_data(axis, "no rows" if rows.empty else "not measured")
        return
    ranks = np.unique(values(rows, "rank"))
    for name, stroke in _BASES.items():
        curve(axis, select(rows, basis=name).dropna(subset=[value]), value, stroke, x="rank")
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
    axis.set_xlim(ranks.min() / 1.3, ranks.max() * 1.3)


_ENDS = {
    "peak": Stroke(BLUE, "o", "", "largest layer (its number beside it)"),
    "last_layer": Stroke(PINK, "s", "", "last layer"),
}


def patch_positions(table: pd.DataFrame) -> Figure:
    """Largest and last-layer effect of each choice of positions, both directions."""
    ways = {way: {"direction": way} for way in ("forward", "reverse")}
    panels = panels_by(table, ways, length="natural")
    figure, cells = rows_of_panels(table, panels, unit="", height=1.7)
    names = list(POSITIONS)
    for axis, panel, pair in cells:
        rows = panel.of(table, pair)
        axis.axvline(0, **ZERO)
        if len(rows):
            axis.axvline(abs(first(rows, "gap")), **{**GAP, "label": None})
        for at, positions in enumerate(names):
            _position_row(axis, select(rows, positions=positions) if len(rows) else rows, at)
        if rows.empty:
            no_data(axis)
        axis.set_yticks(range(len(names)), [POSITIONS[name].label for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.margins(x=0.12)
        axis.grid(visible=False, axis="y")
        below(axis, panel, cells, "effect towards the donor (nats)")
    legend(figure, [*(stroke.line(markersize=5.5) for stroke in _ENDS.values()), GAP])
    return figure


def _position_row(axis: Axes, rows: pd.DataFrame, at: int) -> None:
    """One choice of positions: the last layer just below the largest one."""
    for _, row in rows.iterrows():
        for place, (column, stroke) in enumerate(_ENDS.items()):
            y = at - 0.14 + 0.28 * place
            axis.hlines(y, row[f"{column}_low"], row[f"{column}_high"], color=stroke.color)
            axis.plot(row[column], y, **stroke.line(markersize=5, label=None))
        if np.isfinite(row["peak_layer"]):
            axis.annotate(
                f"{row['peak_layer']:g}", (row["peak"], at - 0.14), xytext=(0, 4), ha="center",
                textcoords="offset points", fontsize=7, color=BLACK,
            )  # fmt: skip
