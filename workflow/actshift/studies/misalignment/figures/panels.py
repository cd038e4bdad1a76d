"""What the figures share: strokes of adapters and nulls, rows of dots, their axes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from actshift.report.panels import PAGE_WIDTH, short
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke

#: Untuned model, adapters, and in open markers the adapters that no direction is made from.
ADAPTERS = {
    "chat": Stroke(BLACK, "x", ":", "untuned (chat)"),
    "insecure": Stroke(RED, "o", "-", "insecure"),
    "rare_safe": Stroke(BLUE, "s", "--", "rare_safe"),
    "secure": Stroke(GREEN, "D", "-.", "secure"),
    "shuffled": Stroke(PINK, "v", ":", "shuffled"),
    "benign": Stroke(ORANGE, "^", "--", "benign"),
    "insecure_unseen": Stroke(RED, "P", "-", "insecure_unseen"),
    "rare_safe_unseen": Stroke(BLUE, "X", "--", "rare_safe_unseen"),
}
#: An edit that leaves a tenth more answers degenerate.
BROKEN: dict[str, Any] = {
    "color": RED, "marker": "o", "markerfacecolor": "white", "linestyle": "",
    "label": "open: a tenth more answers degenerate",
}  # fmt: skip
#: Nulls of equal norm: medians of their draws.
NULL_STROKES = {
    "random": Stroke(GREY, "", "-", "random"),
    "random_span": Stroke(SKY, "", "--", "random in the span of activations"),
    "orthogonal": Stroke(GREEN, "", ":", "random orthogonal to v"),
    "shuffled": Stroke(PINK, "", "-.", "shuffled contrast"),
    "mapped_random": Stroke(ORANGE, "", "--", "mapped random"),
    "shuffled_pairing": Stroke(BLUE, "", ":", "map of shuffled pairs"),
}
V = Stroke(RED, "o", "-", "v_insecure")
BIAS = Stroke(BLUE, "D", "--", "the logit bias it equals on average")
PLAIN: dict[str, Any] = {
    "color": BLACK, "linestyle": ":", "linewidth": 1.1, "label": "without an edit",
}  # fmt: skip
FORCED: dict[str, Any] = {
    "color": GREEN, "linestyle": "-.", "linewidth": 1.1, "label": "behind chat's first token",
}  # fmt: skip
DRAWS: dict[str, Any] = {
    "color": GREY, "alpha": 0.35, "linewidth": 8, "solid_capstyle": "butt",
    "label": "5 to 95 % of the draws of a null",
}  # fmt: skip


def open_marker(name: str) -> dict[str, Any]:
    """Line settings of an adapter; what no direction is made from stands open."""
    return {"markerfacecolor": "white"} if name.endswith("_unseen") else {}


def adapters_in(table: pd.DataFrame, column: str = "adapter") -> list[str]:
    """Adapters that a table names, in the figures' order; unknown ones follow."""
    found = [str(one) for one in table[column].dropna().unique()]
    return [name for name in ADAPTERS if name in found] + [n for n in found if n not in ADAPTERS]


def adapter_stroke(name: str) -> Stroke:
    """The stroke of an adapter; grey for one that the project does not know."""
    return ADAPTERS.get(name, Stroke(GREY, "h", "-", name))


def dot_grid(
    pairs: Sequence[str],
    columns: Mapping[str, str],
    labels: Mapping[str, Sequence[str]],
    *,
    sharex: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A row a pair, a column a quantity, and a line of the panel a label.

    Args:
        pairs: rows.
        columns: title -> x label.
        labels: pair -> names beside its rows, first on top.
        sharex: one range of x a column; not where models differ in scale.

    Returns:
        The figure and its axes, [pair, column].
    """
    # Beside fewer lines the pair's name and size would run into the next panel.
    heights = [max(6, len(labels[pair])) for pair in pairs]
    size = (PAGE_WIDTH, (0.2 if sharex else 0.22) * sum(heights) + 0.55 * len(pairs) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(pairs), len(columns), squeeze=False, sharey="row", sharex="col" if sharex else False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for column, (title, xlabel) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel(xlabel)
    figure.align_ylabels(axes[:, 0])
    for row, pair in enumerate(pairs):
        count = len(labels[pair])
        axes[row, 0].set_ylabel(short(pair))
        axes[row, 0].set_yticks(range(count), labels[pair])
        axes[row, 0].set_ylim(max(count, 1) - 0.4, -0.6)
        for axis in axes[row]:
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
            for at in range(count):
                axis.axhline(at, color="#ececec", linewidth=0.8, zorder=0)
    return figure, axes


def dot(
    axis: Axes, at: float | int, rows: pd.DataFrame, value: str, stroke: Stroke, **changes: Any
) -> None:
    """The first row's value with its interval, where the table has one; nothing without rows.

    What its status calls broken stands open.
    """
    if rows.empty or value not in rows or pd.isna(rows[value].iloc[0]):
        return
    if f"{value}_low" in rows:
        low, high = (float(rows[f"{value}{end}"].iloc[0]) for end in ("_low", "_high"))
        axis.hlines(at, low, high, color=stroke.color, linewidth=1.6)
    look = stroke.line(linestyle="", label=None, markersize=5.5)
    if "status" in rows and str(rows["status"].iloc[0]) == "broken":
        look["markerfacecolor"] = "white"
    axis.plot([float(rows[value].iloc[0])], [at], **{**look, **changes})


def span(axis: Axes, at: float | int, low: float, high: float, *, thin: float = 0.0) -> None:
    """The range of a null's draws; one value stays visible."""
    if np.isnan(low) or np.isnan(high):
        return
    axis.plot([low - thin, high + thin], [at, at], **{**DRAWS, "label": None})


def share_axis(axes: Iterable[Axes], *, low: float = -0.04, high: float = 1.04) -> None:
    """Shares of 1 on the whole range they can take."""
    for axis in axes:
        axis.set_xlim(low, high)


def text_color(image: AxesImage, value: float) -> str:
    """Black or white, whichever stands out from the colour of a value."""
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def counts_label(axis: Axes, pair: str, rows: pd.DataFrame) -> None:
    """The pair's name above the questions and clusters that its rates rest on."""
    text = short(pair)
    if len(rows) and {"n", "clusters"} <= set(rows):
        n, clusters = (f"{rows[column].max():g}" for column in ("n", "clusters"))
        text = f"{text}\nn {n}, {clusters} clusters"
    axis.set_ylabel(text)
