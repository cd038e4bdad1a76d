"""Figures of the direction: what it separates, whom it detects, how alike adapters' shifts are."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import (
    empty_figure,
    legend,
    no_data,
    pair_rows,
    pair_tiles,
    pairs_of,
    short,
    sized,
    thinned,
    whole_layers,
)
from actshift.report.style import GREY, RED
from actshift.report.tables import published_value, select
from actshift.studies.misalignment.figures.panels import (
    adapter_stroke,
    adapters_in,
    counts_label,
    open_marker,
    text_color,
)
from actshift.studies.misalignment.figures.rows import heldout
from actshift.studies.misalignment.kinds import INSECURE

_CHANCE: dict[str, Any] = {
    "color": GREY, "linestyle": "--", "linewidth": 1, "label": "chance",
}  # fmt: skip
#: Cohen's d of a shift on identical prompts reaches the hundreds; small ones must stay legible.
_LINEAR = 1.0


_PAPER: dict[str, Any] = {
    "color": RED, "marker": "*", "markersize": 9, "markerfacecolor": "white", "linestyle": "",
    "label": "published: insecure, last layer, another model",
}  # fmt: skip


def separation(table: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Held-out separation of every adapter from chat by layer, on v_insecure and on its own v."""
    rows = heldout(table)
    pairs = pairs_of(rows) if len(rows) else []
    if not pairs:
        return empty_figure("no separation on held-out questions")
    titles = (
        "balanced accuracy on v_insecure",
        "balanced accuracy on its own v",
        "Cohen's d on v_insecure",
        "Cohen's d on its own v",
    )
    figure, axes = pair_rows(pairs, titles, ylabel="", height=2.1, sharey=False)
    paper = published_value(published, "separation", "separation_at_final_layer")
    for row, pair in enumerate(pairs):
        mine = select(rows, pair=pair)
        same = mine["adapter"] == mine["projected_on"]
        on = (select(mine, projected_on=INSECURE), mine[same])
        for axis, cell in zip(axes[row, :2], on, strict=True):
            axis.axhline(0.5, **{**_CHANCE, "label": None})
            _lines(axis, cell, "balanced_accuracy", ("accuracy_low", "accuracy_high"))
            axis.set_ylim(0.35, 1.03)
        for axis, cell in zip(axes[row, 2:], on, strict=True):
            axis.axhline(0, **{**_CHANCE, "label": None})
            _lines(axis, cell, "cohen_d", None)
            axis.set_yscale("symlog", linthresh=_LINEAR)
            axis.yaxis.set_major_formatter("{x:g}")
        if np.isfinite(paper):
            axes[row, 0].plot([mine["layer"].max()], [paper], **{**_PAPER, "label": None})
        counts_label(axes[row, 0], pair, mine)
    strokes = [_entry(name) for name in adapters_in(rows)]
    legend(figure, [*strokes, _CHANCE, *([_PAPER] if np.isfinite(paper) else [])], columns=5)
    return figure


def _entry(name: str) -> dict[str, Any]:
    """An adapter in the legend."""
    stroke = adapter_stroke(name)
    return stroke.line(**open_marker(name))


def _lines(axis: Axes, rows: pd.DataFrame, value: str, ends: tuple[str, str] | None) -> None:
    """One line an adapter by layer, with its intervals."""
    if rows.empty or rows[value].isna().all():
        no_data(axis)
        return
    names = adapters_in(rows)
    for place, name in enumerate(names):
        mine, stroke = select(rows, adapter=name).sort_values("layer"), adapter_stroke(name)
        apart = min(0.012 * (rows["layer"].max() + 1), 0.3 / len(names))
        at = mine["layer"].to_numpy(dtype=float) + apart * (place - (len(names) - 1) / 2)
        look = stroke.line(label=None, linewidth=1.2, **open_marker(name))
        axis.plot(at, mine[value], **{**look, **thinned(mine)})
        if ends:
            axis.vlines(at, mine[ends[0]], mine[ends[1]], color=stroke.color, linewidth=0.8)
    whole_layers(axis)


def detection(table: pd.DataFrame) -> Figure:
    """AUROC of projections on v_insecure of unseen adapters against others, by layer."""
    rows = heldout(table)
    pairs = pairs_of(rows) if len(rows) else []
    if not pairs:
        return empty_figure("no detection on held-out questions")
    cells = list(rows[["pair", "positive"]].drop_duplicates().itertuples(index=False))
    one = len({positive for _, positive in cells}) == 1
    names = [pair if one else f"{pair}: {positive}" for pair, positive in cells]
    figure, axes = pair_tiles(names, ylabel="AUROC", xlabel="layer (block output)", height=2.8)
    for axis, name, (pair, positive) in zip(axes, names, cells, strict=True):
        mine = select(rows, pair=pair, positive=positive)
        axis.axhline(0.5, **{**_CHANCE, "label": None})
        against = mine.rename(columns={"negative": "adapter"})
        _lines(axis, against, "auroc", ("auroc_low", "auroc_high"))
        axis.set_ylim(-0.04, 1.04)
        axis.set_title(sized(name, mine))
    which = f"{cells[0][1]} against: " if one else "against: "
    entries = [_entry(name) for name in adapters_in(rows, "negative")]
    entries[0]["label"] = which + str(entries[0]["label"])
    legend(figure, [*entries, _CHANCE])
    return figure


_PLACES = 3


def direction_cosines(table: pd.DataFrame) -> Figure:
    """Cosine between adapters' directions at the first, a middle and the last layer."""
    pairs = pairs_of(table)
    both = pd.concat([table["a"], table["b"]]).to_frame("adapter")
    names = adapters_in(both)
    figure, axes = pair_rows(pairs, ["first", "middle", "last"], ylabel="", height=2.2)
    image = None
    for row, pair in enumerate(pairs):
        mine = select(table, pair=pair)
        for axis, layer in zip(axes[row], _three(mine), strict=True):
            image = _cosine_panel(axis, select(mine, layer=layer), names)
            if row < len(pairs) - 1 or axis is not axes[row, 0]:
                axis.tick_params(labelleft=axis is axes[row, 0], labelbottom=row == len(pairs) - 1)
            axis.set_title(f"layer {layer:g}")
            axis.set_xlabel("")
        axes[row, 0].set_ylabel(short(pair))
    if image is not None:
        bar = figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.6, aspect=40)
        bar.set_label("cosine")
    return figure


def _three(rows: pd.DataFrame) -> list[int]:
    """The first, the middle and the last layer of a model."""
    layers = np.sort(rows["layer"].dropna().unique())
    places = np.linspace(0, len(layers) - 1, _PLACES).round().astype(int)
    return [int(layers[place]) for place in places]


def _cosine_panel(axis: Axes, rows: pd.DataFrame, names: list[str]) -> Any:
    """One layer's matrix, symmetric, with its numbers."""
    grid = np.full((len(names), len(names)), np.nan)
    for a, b, cosine in zip(rows["a"], rows["b"], rows["cosine"], strict=True):
        i, j = names.index(str(a)), names.index(str(b))
        grid[i, j] = grid[j, i] = cosine
    np.fill_diagonal(grid, 1.0)
    axis.set_facecolor("#eeeeee")
    axis.grid(visible=False)
    image = axis.imshow(grid, cmap=mpl.colormaps["PuOr"], vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        if not np.isnan(value):
            color = text_color(image, value)
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=6.5)
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=20, ha="right")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    return image
