"""Figures of where a shift points, and of how many of its directions carry over."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from actshift.report.panels import legend, no_data, note, pair_rows, pairs_of, thinned, whole_layers
from actshift.report.style import (
    BLACK,
    BLUE,
    GREY,
    MATRICES,
    MATRIX_TITLES,
    ORANGE,
    PINK,
    RED,
    Stroke,
)
from actshift.report.tables import select, values
from actshift.vocab import MATRICES as MATRIX_NAMES

_COSINES = {
    "cos_own_mean": Stroke(ORANGE, "s", "-", "u₁ · own mean (near 1 by construction)"),
    "cos_refusal": Stroke(RED, "o", "-", "u₁ · refusal direction"),
    "cos_refusal_from_means": Stroke(BLACK, "x", ":", "… predicted from the means alone (did)"),
    "cos_control_from_means": Stroke(
        GREY, "+", ":", "… same prediction, question against statement"
    ),
    "cos_own_mean_centered": Stroke(PINK, "v", "--", "centred u₁ · own mean"),
    "cos_refusal_centered": Stroke(BLUE, "D", "--", "centred u₁ · refusal direction"),
}
_DID_ONLY = ("cos_refusal_from_means", "cos_control_from_means")


def cosine_by_layer(cosine: pd.DataFrame) -> Figure:
    """|cos| of the first direction with the refusal direction and the shift's own mean."""
    pairs = pairs_of(cosine)
    figure, axes = pair_rows(
        pairs, [MATRIX_TITLES[m] for m in MATRIX_NAMES], ylabel="|cos|", height=1.85
    )
    for row, pair in enumerate(pairs):
        for column, matrix in enumerate(MATRIX_NAMES):
            rows = select(cosine, pair=pair, matrix=matrix, inputs="harmful")
            _cosine_panel(axes[row, column], rows, did=matrix == "did")
    legend(figure, [_line(column) for column in _COSINES], columns=3)
    return figure


def _cosine_panel(axis: Axes, rows: pd.DataFrame, *, did: bool) -> None:
    """One pair and matrix, harmful prompts."""
    if rows.empty:
        no_data(axis)
    for column in _COSINES:
        if rows.empty or column not in rows or (column in _DID_ONLY and not did):
            continue
        axis.plot(rows["layer"], rows[column].abs(), **{**_line(column), **thinned(rows)})
    axis.set_ylim(-0.03, 1.08)
    whole_layers(axis)


def _line(column: str) -> dict[str, Any]:
    """A cosine's line: what is left after centring is drawn open."""
    open_marker = {"markerfacecolor": "white", "linewidth": 1.1}
    return _COSINES[column].line(**(open_marker if column.endswith("centered") else {}))


_HELDOUT = {
    "share_fit": Stroke(GREY, "s", "--", "prompts it was fitted on"),
    "share_heldout": Stroke(BLUE, "o", "-", "held-out clusters"),
    "share_null": Stroke(RED, "x", ":", "shuffled null (band to its 95th percentile)"),
}


def heldout_rank(table: pd.DataFrame) -> Figure:
    """Share of held-out shift energy in the first k fitted directions, and the knee by layer."""
    pairs = pairs_of(table)
    titles = [f"{where} layer, template" for where in ("early", "middle", "last")]
    figure, axes = pair_rows(
        pairs, [*titles, "knee by layer"], ylabel="share of energy", sharey=False
    )
    for row, pair in enumerate(pairs):
        rows = select(table, pair=pair, inputs="harmful")
        template = select(rows, matrix="template")
        for axis, layer in zip(axes[row, :3], _three_layers(template), strict=True):
            _curve_panel(axis, select(template, layer=layer), layer)
        _knee_panel(axes[row, 3], rows)
    for axis in axes[-1, :3]:
        axis.set_xlabel("fitted directions k")
    entries = [stroke.line() for stroke in _HELDOUT.values()]
    knee = {"color": BLACK, "linewidth": 1, "linestyle": "--", "label": "knee"}
    by_layer = [MATRICES[m].line(label=f"right: {m}") for m in ("template", "did")]
    legend(figure, [*entries, knee, *by_layer])
    return figure


def _three_layers(rows: pd.DataFrame) -> list[int]:
    """A quarter of the way up, half way, and the last of the table's layers."""
    layers = sorted(rows["layer"].unique()) if len(rows) else [-1]
    last = len(layers) - 1
    return [int(layers[index]) for index in (last // 4, last // 2, last)]


def _curve_panel(axis: Axes, rows: pd.DataFrame, layer: int) -> None:
    """Energy against k at one layer of the template matrix."""
    if rows.empty:
        no_data(axis)
        return
    k = rows["k"]
    axis.fill_between(k, rows["share_null"], rows["share_null_p95"], color=RED, alpha=0.2, lw=0)
    for column, stroke in _HELDOUT.items():
        axis.plot(k, rows[column], **stroke.line(markersize=3, **thinned(rows)))
    knee = rows["knee"].iloc[0]
    if knee >= 1:
        axis.axvline(knee, color=BLACK, linewidth=1, linestyle="--")
    axis.set_ylim(-0.03, 1.05)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.text(
        0.97, 0.45, f"layer {layer}, knee {knee:g}", transform=axis.transAxes, ha="right",
        fontsize=7.5, color=BLACK,
    )  # fmt: skip


def _knee_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """The knee of template and did by layer, on its own axis."""
    for matrix in ("template", "did"):
        knees = select(rows, matrix=matrix).drop_duplicates("layer")
        if len(knees):
            axis.plot(knees["layer"], knees["knee"], **MATRICES[matrix].line(**thinned(knees)))
    axis.set_ylim(0, axis.dataLim.ymax * 1.3)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    note(axis, f"{values(rows, 'clusters_heldout').min():g} held-out clusters")
    whole_layers(axis)
