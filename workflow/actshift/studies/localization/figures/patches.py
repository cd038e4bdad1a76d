"""Figures of patched states by layer, dose and position, their controls, and exchanged weights."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from actshift.report.panels import legend, no_data, note
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke
from actshift.report.tables import first, published_value, select, values
from actshift.studies.localization.figures.panels import (
    BAND,
    GAP,
    POSITIONS,
    ZERO,
    Panel,
    below,
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
            other = select(beside, control="other_condition", positions=positions)
            curve(axis, other, "effect", stroke, linewidth=1.2)
        for place, (positions, stroke) in enumerate(POSITIONS.items()):
            of_positions = select(rows, positions=positions)
            curve(axis, of_positions, "effect", stroke, shift=_apart(rows, place, len(POSITIONS)))
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
            of_control = select(rows, control=name)
            _control_curve(axis, of_control, name, stroke, _apart(rows, place, len(_CONTROLS)))
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
            of_source = select(rows, source=source)
            curve(axis, of_source, "effect", stroke, shift=_apart(rows, place, len(_SOURCES)))
        layers_axis(axis, rows)
    legend(figure, [*(stroke.line() for stroke in _SOURCES.values()), GAP], columns=3)
    return figure


_BLOCK = Stroke(BLUE, "s", "", "whole unit, with its interval")
_PARTS = {
    "attention": Stroke(ORANGE, "^", "", "attention alone"),
    "mlp": Stroke(GREEN, "D", "", "mlp alone"),
}
_EVEN = {"color": GREY, "linestyle": "--", "linewidth": 1, "label": "one part in as many units"}


def swap_shares(table: pd.DataFrame, summary: pd.DataFrame | None) -> Figure:
    """Share of the gap that each unit's weights carry, inserted into base or taken from tuned.

    It is the one share of a layer that does not hold everything below the layer.
    """
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
        of_part = select(rows, part=part).sort_values("layer")
        at = of_part["layer"].to_numpy(dtype=float) + 0.24 * (2 * place - 1)
        axis.plot(at, of_part["share"], **stroke.line(label=None, markersize=3.5))
    axis.axhline(1 / len(units), **{**_EVEN, "label": None})
    layers = range(0, last + 1, max(1, -(-(last + 1) // 8)))
    axis.set_xticks([-1, *layers, last + 1], ["emb", *map(str, layers), "head"])
    axis.grid(visible=False, axis="x")
    return len(units)


def _effective(axis: Axes, summary: pd.DataFrame, units: int) -> None:
    """How many units carry the preference, in words."""
    rows = select(summary, statistic="n_eff_over_units")
    if len(rows):
        number, low, high = (
            f"{first(rows, column) * units:.1f}" for column in ("value", "value_low", "value_high")
        )
        note(axis, f"effective units {number} ({low} to {high}) of {units}")


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
_RANK_FOUR = Stroke(RED, "*", "", "published, layer 9 of 16, k = 4")


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
            axis.plot([4], [marks[reading]], **_RANK_FOUR.line(markersize=9, label=None, zorder=5))
        below(axis, panel, cells, "directions patched, k")
    full = {**GAP, "label": "the full patch, all variance"}
    stars = [_RANK_FOUR.line(markersize=9)] if marks else []
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
            _position_row(axis, select(rows, positions=positions), at)
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
