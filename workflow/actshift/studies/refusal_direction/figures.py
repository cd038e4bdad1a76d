"""Figures of the refusal direction: what it does on held-out prompts, and which was chosen."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from actshift.report.panels import legend, no_data, pair_tiles, pairs_of, short, sized
from actshift.report.style import BLACK, BLUE, GREEN, GREY, RED, Stroke
from actshift.report.tables import select

_EDITS = {"ablate": "removed", "subtract": "subtracted", "add": "added"}
_CONDITIONS = {
    "harmful": Stroke(RED, "o", "", "refused, harmful prompts"),
    "harmless": Stroke(BLUE, "s", "", "refused, harmless prompts"),
}
_TOPIC = Stroke(GREEN, "D", "", "answered on topic (zoo only)")
_PLAIN = Stroke(BLACK, "|", "", "refused without an edit")
_RANDOM: dict[str, Any] = {"color": GREY, "alpha": 0.35, "linewidth": 8, "solid_capstyle": "butt"}


def refusal_effect(effect: pd.DataFrame) -> Figure:
    """Held-out refusal with the direction removed, subtracted and added, beside random draws."""
    pairs = pairs_of(effect)
    figure, axes = pair_tiles(pairs, ylabel="", xlabel="rate on held-out prompts", height=3.0)
    places = [(condition, edit) for condition in _CONDITIONS for edit in _EDITS]
    for axis, pair in zip(axes, pairs, strict=True):
        for at, (condition, edit) in enumerate(places):
            _effect_row(axis, select(effect, pair=pair, condition=condition, edit=edit), at)
        axis.set_title(sized(pair, select(effect, pair=pair)))
        axis.axhline(2.5, color=GREY, linewidth=0.6)
        axis.set_xlim(-0.04, 1.04)
        axis.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(places)), [f"{c}, {_EDITS[e]}" for c, e in places])
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    random = {**_RANDOM, "label": "refused, range of the random draws"}
    entries = [stroke.line() for stroke in (*_CONDITIONS.values(), _TOPIC, _PLAIN)]
    entries[2]["markerfacecolor"] = "white"
    entries[3]["markersize"] = 11
    legend(figure, [*entries, random], columns=3)
    return figure


def _effect_row(axis: Axes, rows: pd.DataFrame, at: int) -> None:
    """One condition and edit: the random draws' range below the direction's own rates."""
    random = rows[rows["control"] == "random"]
    for _, row in random.iterrows():
        # A range of one value would be a line without a length.
        low, high = row["draws_low"] - 0.006, row["draws_high"] + 0.006
        axis.plot([low, high], [at, at], **_RANDOM)
    for _, row in rows[rows["control"].isna()].iterrows():
        stroke = _CONDITIONS[str(row["condition"])]
        ends = np.clip(row["plain_refused"] + np.array([row["low"], row["high"]]), 0, 1)
        axis.hlines(at, *ends, color=stroke.color, linewidth=1.6)
        axis.plot(row["plain_refused"], at, **_PLAIN.line(markersize=11, label=None))
        axis.plot(row["on_topic"], at + 0.24, **_TOPIC.line(markerfacecolor="white", label=None))
        axis.plot(row["refused"], at, **stroke.line(markersize=5.5, label=None))


def refusal_candidates(candidates: pd.DataFrame) -> Figure:
    """Bypass score of every candidate by layer and position, with the chosen one."""
    pairs = pairs_of(candidates)
    figure, axes = pair_tiles(
        pairs, ylabel="position (from the end)", xlabel="layer (block input)", height=2.6
    )
    scores = candidates["bypass"].to_numpy(dtype=float)
    norm = Normalize(np.nanmin(scores), np.nanmax(scores))
    positions = sorted(int(position) for position in candidates["position"].unique())
    image = None
    for axis, pair in zip(axes, pairs, strict=True):
        rows = select(candidates, pair=pair)
        image = _candidate_panel(axis, rows, positions, norm) or image
    if image is not None:
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=45, pad=0.03)
        bar.set_label("refusal log-odds of harmful prompts with the direction removed")
    chosen = {"color": RED, "marker": "s", "linestyle": "", "markerfacecolor": "none",
              "markersize": 9, "markeredgewidth": 2.2, "label": "chosen"}  # fmt: skip
    misses = {"color": BLACK, "marker": "x", "linestyle": "", "label": "misses a filter"}
    legend(figure, [chosen, misses])
    return figure


def _candidate_panel(axis: Axes, rows: pd.DataFrame, positions: list[int], norm: Normalize) -> Any:
    """One pair: cells by index, so that any subset of layers is drawn evenly."""
    axis.grid(visible=False)
    grid = rows.pivot_table(index="position", columns="layer", values="bypass")
    if grid.empty:
        no_data(axis)
        return None
    # Templates differ in length: positions that a pair does not have stay grey.
    grid = grid.reindex(index=positions)
    axis.set_facecolor("#eeeeee")
    layers = grid.columns.to_list()
    image = axis.imshow(
        grid.to_numpy(), origin="lower", aspect="auto", interpolation="nearest",
        cmap=mpl.colormaps["cividis"], norm=norm,
    )  # fmt: skip
    step = max(1, -(-len(layers) // 8))
    axis.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axis.set_yticks(range(len(positions)), [str(position) for position in positions])
    filters = [str(name) for name in rows.columns if str(name).startswith("passes_")]
    for _, row in rows.iterrows():
        x, y = layers.index(row["layer"]), positions.index(row["position"])
        if not all(bool(row[name]) for name in filters):
            light = norm(row["bypass"]) > 0.5
            axis.plot(x, y, "x", color=BLACK if light else "white", markersize=3.5, alpha=0.8)
        if row["chosen"]:
            box = Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=RED, lw=2.4)
            axis.add_patch(box)
            verdict = "passes" if row["verdict"] == "passes" else "none passes, the nearest"
            axis.set_title(f"{short(str(row['pair']))}: {verdict}")
    return image
