"""Figure of exchanged weights: the one share of a layer that does not hold all below it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import legend, no_data, note
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, Stroke
from actshift.report.tables import first, select, values
from actshift.studies.localization.figures.panels import below, panels_by, rows_of_panels

_BLOCK = Stroke(BLUE, "s", "", "whole unit, with its interval")
_PARTS = {
    "attention": Stroke(ORANGE, "^", "", "attention alone"),
    "mlp": Stroke(GREEN, "D", "", "mlp alone"),
}
_EVEN = {"color": GREY, "linestyle": "--", "linewidth": 1, "label": "one part in as many units"}


def swap_shares(table: pd.DataFrame, summary: pd.DataFrame | None) -> Figure:
    """Share of the gap that each unit's weights carry, inserted into base or taken from tuned."""
    ways = {way: {"operation": way} for way in ("insert", "remove")}
    panels = panels_by(table, ways, length="natural")
    figure, cells = rows_of_panels(table, panels, unit="share of the gap")
    for axis, panel, pair in cells:
        rows = panel.of(table, pair)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        if rows.empty or not len(values(rows, "share")):
            no_data(axis, "no rows" if rows.empty else "no gap, no shares")
            below(axis, panel, cells, "")
            continue
        _effective(axis, panel.of(summary, pair), _unit_panel(axis, rows))
        below(axis, panel, cells, "unit: embeddings, layers, head")
    for axis, panel, _ in cells:
        if panel is panels[0]:
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.18 * (high - low))  # room for a line of text
    legend(
        figure, [_BLOCK.line(markersize=6), *(stroke.line() for stroke in _PARTS.values()), _EVEN]
    )
    return figure


def _unit_panel(axis: Axes, rows: pd.DataFrame) -> int:
    """Bars of whole units in order of depth, and the two halves of each block; counts the units."""
    last = int(rows["layer"].max())
    units = rows[rows["part"].isin(["embeddings", "block", "head"])].copy()
    edge = units["part"].map({"embeddings": -1, "head": last + 1})
    units["at"] = edge.where(edge.notna(), units["layer"]).astype(int)
    units = units.sort_values("at")
    axis.bar(units["at"], units["share"], color=BLUE, alpha=0.45, width=0.8, linewidth=0)
    axis.vlines(units["at"], units["share_low"], units["share_high"], color=BLUE, linewidth=1.4)
    for place, (part, stroke) in enumerate(_PARTS.items()):
        mine = select(rows, part=part).sort_values("layer")
        at = mine["layer"].to_numpy(dtype=float) + 0.24 * (2 * place - 1)
        axis.plot(at, mine["share"], **stroke.line(label=None, markersize=3.5))
    axis.axhline(1 / len(units), **{**_EVEN, "label": None})
    layers = range(0, last + 1, max(1, -(-(last + 1) // 8)))
    axis.set_xticks([-1, *layers, last + 1], ["emb", *map(str, layers), "head"])
    axis.grid(visible=False, axis="x")
    return len(units)


def _effective(axis: Axes, summary: pd.DataFrame, units: int) -> None:
    """How many units carry the preference, in words."""
    rows = select(summary, statistic="n_eff_over_units") if len(summary) else summary
    if len(rows):
        number, low, high = (
            f"{first(rows, column) * units:.1f}" for column in ("value", "value_low", "value_high")
        )
        note(axis, f"effective units {number} ({low} to {high}) of {units}")
