"""Figures of patched states: by layer in both directions, beside controls, and by source."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import legend
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke
from actshift.report.tables import select
from actshift.studies.localization.figures.panels import (
    BAND,
    GAP,
    POSITIONS,
    Panel,
    curve,
    gap_line,
    layers_axis,
    panels_by,
    published_layer,
    rows_of_panels,
)

_OTHER = {
    "all": Stroke(GREY, "", "--", "control, all: donor of the other condition"),
    "last_prompt": Stroke(GREY, "", ":", "control, last prompt token: the same"),
}


def patch_forward(
    patching: pd.DataFrame, controls: pd.DataFrame | None, published: pd.DataFrame | None
) -> Figure:
    """Effect of the tuned model's states in the base, by layer and positions."""
    return _by_layer(patching, controls, "forward", published)


def patch_reverse(patching: pd.DataFrame, controls: pd.DataFrame | None) -> Figure:
    """Effect of the base's states in the tuned model, by layer and positions."""
    return _by_layer(patching, controls, "reverse")


def _by_layer(
    patching: pd.DataFrame,
    controls: pd.DataFrame | None,
    direction: str,
    published: pd.DataFrame | None = None,
) -> Figure:
    panels = panels_by(patching, {"": {}}, direction=direction, length="natural")
    figure, cells = rows_of_panels(patching, panels, unit="effect (nats)")
    marked = False
    for axis, panel, pair in cells:
        rows, beside = panel.of(patching, pair), panel.of(controls, pair)
        gap_line(axis, rows)
        marked |= published_layer(axis, _layers(rows), published)
        for positions, stroke in _OTHER.items():
            other = _control(beside, "other_condition", positions)
            curve(axis, other, "effect", stroke, linewidth=1.2)
        for place, (positions, stroke) in enumerate(POSITIONS.items()):
            mine = select(rows, positions=positions)
            curve(axis, mine, "effect", stroke, shift=_apart(rows, place, len(POSITIONS)))
        layers_axis(axis, rows)
    drawn = _OTHER.values() if controls is not None else ()
    strokes = [stroke.line() for stroke in (*POSITIONS.values(), *drawn)]
    band = {**BAND, "linewidth": 8, "solid_capstyle": "butt", "label": "published peak, by depth"}
    legend(figure, [*strokes, GAP, *([band] if marked else [])], columns=4)
    return figure


def _layers(rows: pd.DataFrame) -> int:
    """Blocks of the model whose rows these are."""
    return int(rows["layer"].max()) + 1 if len(rows) else 0


def _apart(rows: pd.DataFrame, place: int, count: int) -> float:
    """Where a series stands beside its layer's tick, so that intervals do not hide each other."""
    # Never so far that a marker seems to belong to the next layer.
    return min(0.012 * _layers(rows), 0.3 / count) * (place - (count - 1) / 2)


def _control(controls: pd.DataFrame, control: str, positions: str) -> pd.DataFrame:
    """Rows of one control at some positions; none where there are no controls."""
    if controls.empty:
        return controls
    return select(controls, control=control, positions=positions)


_PATCH = Stroke(BLUE, "o", "-", "the donor's states")
_CONTROLS = {
    "shuffled": Stroke(GREEN, "D", "--", "donor on another pair, same condition"),
    "other_condition": Stroke(RED, "^", "-.", "donor on a pair of the other condition"),
    "noise": Stroke(ORANGE, "s", ":", "Gaussian noise"),
    "random": Stroke(GREY, "", "-", "random directions of equal norm (range of draws)"),
    "identity": Stroke(BLACK, "x", "", "the receiver's own states"),
    "whole_head": Stroke(PINK, "*", "", "last layer with the donor's norm and head"),
}  # fmt: skip


def patch_controls(controls: pd.DataFrame, patching: pd.DataFrame | None) -> Figure:
    """Effects of every control by layer, beside the patch itself."""
    places = {"all": {"positions": "all"}, "last token": {"positions": "last_prompt"}}
    panels = panels_by(controls, places, direction="forward", length="natural")
    figure, cells = rows_of_panels(controls, panels, unit="effect (nats)", sharey=False)
    for axis, panel, pair in cells:
        rows = panel.of(controls, pair)
        # One token moves little of the gap, which would flatten its panel.
        gap_line(axis, rows, zero_only=panel.cell["positions"] == "last_prompt")
        curve(axis, panel.of(patching, pair), "effect", _PATCH)
        for place, (name, stroke) in enumerate(_CONTROLS.items()):
            mine = select(rows, control=name) if len(rows) else rows
            _control_curve(axis, mine, name, stroke, _apart(rows, place, len(_CONTROLS)))
        layers_axis(axis, rows)
    patch = [_PATCH.line()] if patching is not None else []
    strokes = [stroke.line() for stroke in _CONTROLS.values()]
    legend(figure, [*patch, *strokes, GAP], columns=3)
    return figure


def _control_curve(axis: Axes, rows: pd.DataFrame, name: str, stroke: Stroke, shift: float) -> None:
    """One control; random directions as the range of their draws."""
    if rows.empty:
        return
    if name == "random":
        rows = rows.sort_values("layer")
        ends = (rows["draws_low"], rows["draws_high"])
        axis.fill_between(rows["layer"], *ends, color=GREY, alpha=0.3, linewidth=0)
        axis.plot(rows["layer"], rows["draws_median"], color=GREY, linewidth=1)
        return
    size = {"whole_head": 9, "identity": 4.5}.get(name)
    if size is None:
        curve(axis, rows, "effect", stroke, shift=shift)
    else:  # what is exact stands on its layer
        curve(axis, rows, "effect", stroke, markersize=size)


_SOURCES = {
    "chosen": Stroke(BLUE, "o", "-", "donor's states on the chosen answer, for both sides"),
    "rejected": Stroke(RED, "s", "--", "donor's states on the rejected answer, for both sides"),
    "contrast": Stroke(GREEN, "D", "-.", "chosen minus rejected, added"),
    "donor": Stroke(SKY, "v", ":", "each side's own states (the patch)"),
}


def patch_sources(sources: pd.DataFrame) -> Figure:
    """Effect by what the donor read, completion tokens of pairs cut to equal length."""
    cell = {"direction": "forward", "length": "matched", "positions": "completion"}
    panels: list[Panel] = panels_by(sources, {"": {}}, **cell)
    figure, cells = rows_of_panels(sources, panels, unit="effect (nats)")
    for axis, panel, pair in cells:
        rows = panel.of(sources, pair)
        gap_line(axis, rows)
        for place, (source, stroke) in enumerate(_SOURCES.items()):
            mine = select(rows, source=source) if len(rows) else rows
            curve(axis, mine, "effect", stroke, shift=_apart(rows, place, len(_SOURCES)))
        layers_axis(axis, rows)
    legend(figure, [*(stroke.line() for stroke in _SOURCES.values()), GAP], columns=3)
    return figure
