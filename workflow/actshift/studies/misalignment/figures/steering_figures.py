"""Figures of steering within a model: by coefficient, by layer, and at equal KL."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import empty_figure, legend, no_data, pair_rows, pairs_of
from actshift.report.style import BLACK, GREY, Stroke
from actshift.report.tables import first, select, values
from actshift.studies.misalignment.figures.panels import (
    BIAS,
    BROKEN,
    DRAWS,
    FORCED,
    NULL_STROKES,
    PLAIN,
    PUBLISHED,
    V,
    at_chosen,
    chosen_coeff,
    counts_label,
    dot,
    dot_grid,
    heldout,
    lanes,
    nulls,
    own,
    protocol_lanes,
    share_axis,
    span,
)
from actshift.studies.misalignment.kinds import INSECURE, NULLS

_NONE = "no edit of the insecure adapter on held-out questions"
_CHOSEN: dict[str, Any] = {
    "color": BLACK, "linestyle": "-", "linewidth": 0.7, "alpha": 0.6,
    "label": "coefficient chosen on select questions",
}  # fmt: skip


def steering_dose(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """Answers with code and repaired answers by coefficient, with every null's draws."""
    pairs = pairs_of(heldout(table))
    if not pairs:
        return empty_figure(_NONE)
    titles = ("repaired", "repaired: 95th percentile of each null", "answered with code")
    figure, axes = pair_rows(pairs, titles, ylabel="share", height=2.1, sharey=False)
    for row, pair in enumerate(pairs):
        protocols = (PUBLISHED, "logit_bias", "forced_token")
        last, bias, forced = (select(lanes(table, pair), protocol=name) for name in protocols)
        for column, value in enumerate(("repaired", "repaired", "code")):
            axis = axes[row, column]
            _dose_panel(axis, last, bias, value, single=column == 1)
            if len(forced):
                axis.axhline(first(forced, value), **{**FORCED, "label": None})
            axis.axvline(chosen_coeff(specificity, pair), **{**_CHOSEN, "label": None})
            axis.set_ylim(-0.04, 1.04)
        counts_label(axes[row, 0], pair, last)
    for axis in axes[-1]:
        axis.set_xlabel("coefficient")
    singles = [NULL_STROKES[name].line(label=f"{NULL_STROKES[name].label}, 95 %")
               for name in NULLS]  # fmt: skip
    band = {**DRAWS, "label": "5 to 95 % of draws, widest of four nulls"}
    entries = [V.line(), BIAS.line(), band, *singles, PLAIN, FORCED, _CHOSEN, BROKEN]
    legend(figure, entries, columns=3)
    return figure


def _dose_panel(
    axis: Axes, rows: pd.DataFrame, bias: pd.DataFrame, value: str, *, single: bool
) -> None:
    """One outcome by coefficient: v with its interval over the draws of the nulls."""
    v = own(rows)
    if v.empty:
        no_data(axis)
        return
    axis.axhline(first(v.sort_values("coeff"), f"{value}_plain"), **{**PLAIN, "label": None})
    against = nulls(rows)
    if single:
        _strongest(axis, against)
    else:
        _envelope(axis, against, value)
    for one, stroke in ((own(bias), BIAS), (v, V)):
        if one.empty:
            continue
        one = one.sort_values("coeff")
        axis.plot(one["coeff"], one[value], **stroke.line(label=None, linewidth=1.3))
        broken = select(one, status="broken")
        face = {"label": None, "linestyle": "", "markerfacecolor": "white"}
        axis.plot(broken["coeff"], broken[value], **stroke.line(**face))
        ends = (one[f"{value}_low"], one[f"{value}_high"])
        axis.vlines(one["coeff"], *ends, color=stroke.color, linewidth=0.9, alpha=0.7)


def _draw_ends(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Ends of each null's draws as rates: gains and drops count from the model without an edit."""
    rows = rows.assign(coeff=rows["coeff"].astype(float))
    if value == "repaired":
        low = rows["repaired_plain"] + rows["draws_low"]
        high = rows["repaired_plain"] + rows["draws_high"]
    else:  # only the strong end of the drop is kept
        low, high = rows["code_plain"] - rows["drop_draws_high"], rows["code"]
    return rows.assign(low=low, high=high)


def _envelope(axis: Axes, rows: pd.DataFrame, value: str) -> None:
    """From the lowest to the highest end of any null, by coefficient."""
    if rows.empty:
        return
    ends = _draw_ends(rows, value).dropna(subset=["low", "high"]).groupby("coeff")
    low, high = ends["low"].min(), ends["high"].max()
    look = {"color": GREY, "alpha": 0.3, "linewidth": 0}
    axis.fill_between(low.index.to_numpy(), low, high, **look)
    axis.vlines(low.index.to_numpy(), low, high, color=GREY, linewidth=0.8)


def _strongest(axis: Axes, rows: pd.DataFrame) -> None:
    """The 95th percentile of the draws of each null: what v has to beat."""
    for name in NULLS:
        one = select(rows, control=name).sort_values("coeff") if len(rows) else rows
        if len(one):
            high = one["repaired_plain"] + one["draws_high"]
            axis.plot(one["coeff"], high, **NULL_STROKES[name].line(label=None, linewidth=1.3))


_GAIN, _DROP = "gain in repaired answers", "drop of answers with code"


def steering_layers(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """Gain and drop of every protocol and layer at its own coefficient, over its nulls' draws."""
    pairs = pairs_of(heldout(table))
    found = {pair: list(protocol_lanes(lanes(table, pair), pair, specificity)) for pair in pairs}
    if not any(found.values()):
        return empty_figure(_NONE)
    labels = {
        pair: [f"{name}, {first(rows, 'coeff'):g} v" for name, rows in found[pair]]
        for pair in pairs
    }
    figure, axes = dot_grid(pairs, {_GAIN: "share", _DROP: "share"}, labels)
    for row, pair in enumerate(pairs):
        for at, (_, rows) in enumerate(found[pair]):
            _effect_row(axes[row, 0], at, rows, "gain", ("draws_low", "draws_high"))
            _effect_row(axes[row, 1], at, rows, "drop", ("drop", "drop_draws_high"))
        counts_label(axes[row, 0], pair, lanes(table, pair))
        for axis in axes[row]:
            axis.axvline(0, color=BLACK, linewidth=0.8)
    left = {**DRAWS, "label": "nulls: to 95 % of draws (gain: from 5 %; drop: from their mean)"}
    legend(figure, [V.line(linestyle="", label="v_insecure, 95 % interval"), left, BROKEN])
    return figure


def _effect_row(axis: Axes, at: int, rows: pd.DataFrame, value: str, ends: tuple[str, str]) -> None:
    """Effect of v over the range of the draws of all nulls."""
    against = nulls(rows)
    if len(against):
        low, high = values(against, ends[0]), values(against, ends[1])
        if len(low) and len(high):
            span(axis, at, low.min(), high.max(), thin=0.003)
    dot(axis, at, own(rows), value, V)


_MATCHED = ("repaired", "kl_first", "scale")
_RULES = {
    "norm": Stroke(BLACK, "o", "", "at equal norm"),
    "kl": Stroke(NULL_STROKES["random_span"].color, "s", "", "at equal KL"),
}


def steering_equal_kl(table: pd.DataFrame, specificity: pd.DataFrame | None) -> Figure:
    """Repaired answers under v and under nulls of its norm and of its KL."""
    pairs = pairs_of(heldout(table))
    found = {pair: _matched_rows(table, pair, specificity) for pair in pairs}
    if not any(len(rows) for rows in found.values()):
        return empty_figure("no edit at equal KL on held-out questions")
    controls = ("direction", *NULLS)
    labels = {pair: ["v_insecure", *(NULL_STROKES[name].label for name in NULLS)] for pair in pairs}
    titles = {
        "repaired": "share, held-out questions",
        "KL from the model without the edit": "nats, first token, held-out questions",
        "norm": "multiple of v's",
    }
    figure, axes = dot_grid(pairs, titles, labels)
    for row, pair in enumerate(pairs):
        for at, name in enumerate(controls):
            _matched_row(axes[row], at, found[pair], name)
        counts_label(axes[row, 0], pair, found[pair])
    share_axis(axes[:, 0])
    for column in axes[:, 1:].T:  # panels of a column share x: the widest pair decides
        column[0].set_xlim(0, max(1.08 * max(axis.dataLim.xmax for axis in column), 1e-3))
    entries = [stroke.line() for stroke in _RULES.values()]
    cross = {"color": BLACK, "marker": "x", "linestyle": "", "label": "unmatched: KL not reached"}
    legend(figure, [V.line(linestyle=""), *entries, cross, DRAWS], columns=5)
    return figure


def _matched_rows(table: pd.DataFrame, pair: str, specificity: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of v and its nulls under both rules at the chosen coefficient, published edit."""
    rows = select(heldout(table), pair=pair, receiver=INSECURE)
    rows = at_chosen(rows, pair, specificity)
    if rows.empty or not (rows["norm_rule"] == "kl").any():
        return rows.iloc[:0]
    return rows[rows.index.isin([*own(rows).index, *nulls(rows).index])]


def _matched_row(axes: np.ndarray, at: int, rows: pd.DataFrame, control: str) -> None:
    """One line of the three panels."""
    subset = select(rows, control=control)
    if control == "direction":
        subset = select(subset, norm_rule="norm")
        for axis, value in zip(axes, _MATCHED, strict=True):
            dot(axis, at, subset, value, V)
        return
    for place, (rule, stroke) in enumerate(_RULES.items()):
        one = select(subset, norm_rule=rule)
        if one.empty:
            continue
        y = at + 0.3 * (place - 0.5)
        unmatched = str(one["status"].iloc[0]) == "unmatched"
        look = {"marker": "x", "markersize": 6.5} if unmatched else {"markersize": 4.5}
        ends = _draw_ends(one, "repaired")
        span(axes[0], y, float(ends["low"].iloc[0]), float(ends["high"].iloc[0]), thin=0.003)
        for axis, value in zip(axes, _MATCHED, strict=True):
            dot(axis, y, one[list(_MATCHED)], value, stroke, **look)
