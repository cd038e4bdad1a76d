"""Figures of content and of maps: other adapters' directions, and what ridge maps carry."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from actshift.report.panels import empty_figure, legend, pairs_of, short
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Stroke
from actshift.report.tables import select
from actshift.studies.misalignment.figures.panels import counts_label, dot, dot_grid
from actshift.studies.misalignment.figures.rows import (
    MARGIN,
    PUBLISHED,
    chosen_coeff,
    heldout,
    near,
)
from actshift.studies.misalignment.kinds import INSECURE

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
    pairs = pairs_of(rows) if len(rows) else []
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
    mine = select(rows, protocol=PUBLISHED) if len(rows) else rows
    mine = near(mine, chosen_coeff(specificity, pair)) if len(mine) else mine
    cells = mine[["receiver", "source"]].drop_duplicates().itertuples(index=False)
    return [
        (f"v_{source} on {receiver}", select(mine, receiver=receiver, source=source))
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
            mine = select(last, receiver=name, donor=donor)
            for place, fit in enumerate(fits):
                y = at + 0.34 * (place - (len(fits) - 1) / 2)
                _map_row(axes[row], y, select(mine, fit_on=fit), _FITS.get(fit, _OTHER_FIT))
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
