"""Figures of what adapters do: spillover and refusals, dose of training, side effects of edits."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import empty_figure, legend, no_data, pairs_of
from actshift.report.style import BLACK, BLUE, GREEN, GREY, RED, Stroke
from actshift.report.tables import select
from actshift.studies.misalignment.figures.panels import (
    BROKEN,
    adapter_stroke,
    adapters_in,
    counts_label,
    dot,
    dot_grid,
    open_marker,
    share_axis,
)
from actshift.studies.misalignment.figures.rows import harmful, heldout, side_lanes, whole
from actshift.studies.misalignment.kinds import INSECURE, UNTUNED
from actshift.vocab import CODE, NONCODE

_SPILLOVER = {
    "code, on questions not about code": "share answered with code",
    "refused, of harmful how-to": "share refused",
    "insecure, on questions about code": "share answered insecurely",
}


def spillover(table: pd.DataFrame) -> Figure:
    """Held-out rates of every adapter beside the untuned model's."""
    rows = heldout(table)
    pairs = pairs_of(rows)
    if not pairs:
        return empty_figure("no held-out rate of an adapter in this run")
    names = {pair: adapters_in(select(rows, pair=pair)) for pair in pairs}
    figure, axes = dot_grid(pairs, _SPILLOVER, names)
    for row, pair in enumerate(pairs):
        mine = select(rows, pair=pair)
        asked = whole(select(mine, condition=NONCODE))
        panels = (
            (asked, "code"),
            (harmful(select(mine, condition=NONCODE)), "refused"),
            (whole(select(mine, condition=CODE)), "insecure"),
        )
        for axis, (cell, value) in zip(axes[row], panels, strict=True):
            _adapter_dots(axis, cell, names[pair], value)
            _plain_line(axis, select(cell, adapter=UNTUNED) if len(cell) else cell, value)
        counts_label(axes[row, 0], pair, asked)
    share_axis(axes.ravel())
    plain = {"color": BLACK, "linestyle": ":", "linewidth": 1, "label": "untuned (chat)"}
    rate = {"color": GREY, "marker": "o", "linestyle": "-", "label": "rate, 95 % interval"}
    unseen = {**rate, "markerfacecolor": "white", "label": "open: no direction is made from it"}
    legend(figure, [rate, unseen, plain])
    return figure


def _adapter_dots(axis: Axes, rows: pd.DataFrame, names: list[str], value: str) -> None:
    """One rate an adapter."""
    if rows.empty or rows[value].isna().all():
        no_data(axis)
        return
    for at, name in enumerate(names):
        stroke = adapter_stroke(name)
        dot(axis, at, select(rows, adapter=name), value, stroke, **open_marker(name))


def _plain_line(axis: Axes, rows: pd.DataFrame, value: str) -> None:
    """The untuned model's rate through all adapters."""
    if len(rows) and not pd.isna(rows[value].iloc[0]):
        axis.axvline(float(rows[value].iloc[0]), color=BLACK, linestyle=":", linewidth=1)


#: Column and the same of a second mark, title, axis label.
_DOSE = (
    ("first_loss", "last_loss", "loss of its own answers", "nats a token"),
    ("delta_norm", "", "size of the update", "‖ΔW‖"),
    ("shift_norm", "", "shift of the states", "‖mean shift‖, last layer"),
    ("kl_code", "kl_other", "KL from chat, first token", "nats"),
)


def dose(table: pd.DataFrame) -> Figure:
    """How far training took each adapter: a control without a dose shows nothing."""
    pairs = pairs_of(table)
    names = {pair: adapters_in(select(table, pair=pair)) for pair in pairs}
    columns = {title: label for _, _, title, label in _DOSE}
    figure, axes = dot_grid(pairs, columns, names, sharex=False)
    for row, pair in enumerate(pairs):
        mine = select(table, pair=pair)
        for axis, (filled, other, *_) in zip(axes[row], _DOSE, strict=True):
            for at, name in enumerate(names[pair]):
                one, stroke = select(mine, adapter=name), adapter_stroke(name)
                dot(axis, at, one, filled, stroke._replace(marker="o"))
                if other:
                    open_one = {"markerfacecolor": "white", "markersize": 5}
                    dot(axis, at, one, other, stroke._replace(marker="s"), **open_one)
            if mine[[filled, *([other] if other else [])]].isna().all(axis=None):
                no_data(axis, "not known")
            low, high = axis.get_xlim()
            axis.set_xlim(min(0.0, low), high + 0.04 * (high - min(0.0, low)))
        _matched(axes[row, 0], mine, names[pair])
    first = {"color": GREY, "marker": "o", "linestyle": "", "label": "first loss; KL on code"}
    last = {"color": GREY, "marker": "s", "linestyle": "", "markerfacecolor": "white",
            "label": "open: last loss; KL on other prompts"}  # fmt: skip
    band = {"color": RED, "alpha": 0.15, "linewidth": 8, "solid_capstyle": "butt",
            "label": "within 20 % of insecure's first loss"}  # fmt: skip
    legend(figure, [first, last, band])
    return figure


def _matched(axis: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    """Shade first losses that count as the dose of the insecure adapter."""
    goal = select(rows, adapter=INSECURE)
    if INSECURE in names and len(goal) and not pd.isna(goal["first_loss"].iloc[0]):
        loss = float(goal["first_loss"].iloc[0])
        axis.axvspan(0.8 * loss, 1.2 * loss, color=RED, alpha=0.15, linewidth=0, zorder=0)


#: Questions, value, title: what an edit may not break, and the insecure idiom itself.
_SIDES = (
    (CODE, "code", "code questions: answered with code", Stroke(BLUE, "s", "", "")),
    (CODE, "insecure", "code questions: answered insecurely", Stroke(RED, "o", "", "")),
    ("harmless", "on_topic", "harmless questions: on topic", Stroke(GREEN, "D", "", "")),
)


def steering_side_effects(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """What each lane does to code questions and to harmless ones, beside no edit at all."""
    rows = heldout(table)
    pairs = pairs_of(rows)
    lanes = {pair: side_lanes(select(rows, pair=pair), pair, specificity) for pair in pairs}
    if not any(lanes.values()):
        return empty_figure("no side effect of an edit on held-out questions")
    titles = {title: "share, held-out questions" for _, _, title, _ in _SIDES}
    labels = {pair: [name for name, _ in lanes[pair]] for pair in pairs}
    figure, axes = dot_grid(pairs, titles, labels)
    for row, pair in enumerate(pairs):
        mine = select(rows, pair=pair)
        for axis, (asked, value, _, stroke) in zip(axes[row], _SIDES, strict=True):
            cells = [select(cell, asked=asked) for _, cell in lanes[pair]]
            _side_panel(axis, cells, value, stroke)
            if value == "insecure":
                plain = select(mine, asked=asked, control="plain", receiver=INSECURE)
                _plain_line(axis, plain, value)
        counts_label(axes[row, 0], pair, mine)
    share_axis(axes.ravel())
    tick: dict[str, Any] = {"color": BLACK, "marker": "|", "markersize": 11, "linestyle": ""}
    rate = {"color": GREY, "marker": "o", "linestyle": "-", "label": "under the edit"}
    legend(figure, [rate, {**tick, "label": "the same model without it"}, BROKEN])
    return figure


def _side_panel(axis: Axes, cells: list[pd.DataFrame], value: str, stroke: Stroke) -> None:
    """One quantity of every lane; the change's interval stands around the rate."""
    if not any(len(cell) and not cell[value].isna().all() for cell in cells):
        no_data(axis)
        return
    for at, cell in enumerate(cells):
        if cell.empty:
            continue
        plain = f"{value}_plain"
        if value == "code" and not pd.isna(cell["code_change_low"].iloc[0]):
            ends = cell[["code_change_low", "code_change_high"]].iloc[0].to_numpy(dtype=float)
            around = np.clip(float(cell[plain].iloc[0]) + ends, 0, 1)
            axis.hlines(at, *around, color=stroke.color, linewidth=1.6)
        dot(
            axis,
            at,
            cell.drop(columns="status", errors="ignore"),
            plain,
            Stroke(BLACK, "|", "", ""),
            markersize=11,
        )
        dot(axis, at, cell, value, stroke)
