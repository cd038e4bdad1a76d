"""Figure of the spectral gap: kappa by layer and reference, and its share of what is possible."""

from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from actshift.maths.gap import KAPPA_THRESHOLD
from actshift.report.panels import (
    legend,
    no_data,
    pair_rows,
    pairs_of,
    short,
    sized,
    whole_layers,
)
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke
from actshift.report.tables import select, values
from actshift.vocab import DEFAULT_EPS

_MARKS = ((RED, "o", "-"), (BLUE, "s", "--"), (GREEN, "D", "-."), (ORANGE, "^", ":"),
          (PINK, "v", "-"), (SKY, "P", "--"))  # fmt: skip


def kappa_by_layer(gap: pd.DataFrame, summary: pd.DataFrame | None) -> Figure:
    """Kappa by layer on a log scale, and kappa over its bound 2 / (eps r)."""
    pairs = pairs_of(gap)
    titles = ["κ (log scale)", "κ over its bound 2 / (ε r)"]
    figure, axes = pair_rows(pairs, titles, ylabel="", sharey=False, height=2.0)
    references = list(dict.fromkeys(gap["reference"]))
    strokes = {
        name: Stroke(*_MARKS[index % len(_MARKS)], short(name))
        for index, name in enumerate(references)
    }
    published = _published(summary)
    for row, pair in enumerate(pairs):
        rows = select(gap, pair=pair)
        axes[row, 0].set_ylabel(sized(pair, rows))
        _kappa_panel(axes[row, 0], rows, strokes, published)
        _share_panel(axes[row, 1], rows, strokes)
    kappa = gap["kappa"].to_numpy(dtype=float)
    drawn = kappa[np.isfinite(kappa) & (kappa > 0)]
    floor = min([*drawn, *published, KAPPA_THRESHOLD]) / 4
    for axis in axes[:, 0]:
        axis.set_ylim(floor, max([*drawn, KAPPA_THRESHOLD]) * 2)
    rank = _least_uninformative_rank(gap)
    open_marker = {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
    entries = [
        *(stroke.line() for stroke in strokes.values()),
        {"color": BLACK, "linestyle": "--", "label": f"threshold {KAPPA_THRESHOLD:g}"},
        {**open_marker, "label": f"open: rank of {rank} or more, κ cannot reach the threshold"},
        {"color": GREY, "marker": "x", "linestyle": "", "label": "no difference (S = 0)"},
    ]
    if published:
        entries.append({"color": GREY, "linestyle": ":", "label": "published medians, other model"})
    legend(figure, entries, columns=4)
    return figure


def _least_uninformative_rank(gap: pd.DataFrame) -> int:
    """The smallest rank whose bound 2 / (eps r) does not exceed the threshold, at the rows' eps."""
    reach = values(gap.assign(reach=gap["bound"] * gap["rank_S"]), "reach")
    most = float(reach[0]) if len(reach) else 2 / DEFAULT_EPS
    return ceil(round(most / KAPPA_THRESHOLD, 6))


def _published(summary: pd.DataFrame | None) -> list[float]:
    """Medians of the published layers, by reference; none without the table."""
    rows = select(summary, source="published") if summary is not None else pd.DataFrame()
    return values(rows, "kappa_median").tolist() if len(rows) else []


def _kappa_panel(
    axis: Axes, rows: pd.DataFrame, strokes: dict[str, Stroke], published: list[float]
) -> None:
    """Kappa with its stability range over half-samples."""
    axis.axhline(KAPPA_THRESHOLD, color=BLACK, linestyle="--", linewidth=1)
    for median in published:
        axis.axhline(median, color=GREY, linestyle=":", linewidth=1)
    _series(axis, rows, strokes, "kappa")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _share_panel(axis: Axes, rows: pd.DataFrame, strokes: dict[str, Stroke]) -> None:
    """Kappa's share of the largest value that its rank allows."""
    _series(axis, rows, strokes, "kappa_over_bound")
    axis.set_ylim(-0.03, 1.05)


def _series(axis: Axes, rows: pd.DataFrame, strokes: dict[str, Stroke], column: str) -> None:
    """A line a reference; a little apart, so that equal values stay visible."""
    if rows.empty:
        no_data(axis)
    for index, (name, stroke) in enumerate(strokes.items()):
        of_name = select(rows, reference=name)
        x = of_name["layer"].to_numpy(dtype=float) + 0.1 * (index - (len(strokes) - 1) / 2)
        y = of_name[column].to_numpy(dtype=float)
        axis.plot(x, y, color=stroke.color, linestyle=stroke.linestyle, linewidth=1.1)
        if column == "kappa" and {"kappa_low", "kappa_high"} <= set(of_name.columns):
            axis.vlines(
                x, of_name["kappa_low"], of_name["kappa_high"], color=stroke.color, linewidth=1.2
            )
        high = (of_name["status"] == "rank too high").to_numpy()
        for mask, face in ((~high, stroke.color), (high, "white")):
            axis.plot(
                x[mask], y[mask], linestyle="", marker=stroke.marker, color=stroke.color,
                markerfacecolor=face, markersize=5 if len(of_name) <= 16 else 3,
            )  # fmt: skip
        none = (of_name["status"] == "no difference").to_numpy()
        axis.plot(
            x[none], [0.05] * int(none.sum()), linestyle="", marker="x", color=stroke.color,
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip
    whole_layers(axis)
