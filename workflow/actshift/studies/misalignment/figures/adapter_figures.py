"""Figures of adapters: spillover, dose, side effects of edits; separation, detection, cosines."""

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
from actshift.report.style import BLACK, BLUE, GREEN, GREY, RED, Stroke
from actshift.report.tables import published_value, select
from actshift.studies.misalignment.figures.panels import (
    BROKEN,
    adapter_stroke,
    adapters_in,
    counts_label,
    dot,
    dot_grid,
    harmful,
    heldout,
    open_marker,
    share_axis,
    side_lanes,
    text_color,
    whole,
)
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
        subset = select(rows, pair=pair)
        asked = whole(select(subset, condition=NONCODE))
        panels = (
            (asked, "code"),
            (harmful(select(subset, condition=NONCODE)), "refused"),
            (whole(select(subset, condition=CODE)), "insecure"),
        )
        for axis, (cell, value) in zip(axes[row], panels, strict=True):
            _adapter_dots(axis, cell, names[pair], value)
            _plain_line(axis, select(cell, adapter=UNTUNED), value)
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
        subset = select(table, pair=pair)
        for axis, (filled, other, *_) in zip(axes[row], _DOSE, strict=True):
            for at, name in enumerate(names[pair]):
                one, stroke = select(subset, adapter=name), adapter_stroke(name)
                dot(axis, at, one, filled, stroke._replace(marker="o"))
                if other:
                    open_one = {"markerfacecolor": "white", "markersize": 5}
                    dot(axis, at, one, other, stroke._replace(marker="s"), **open_one)
            if subset[[filled, *([other] if other else [])]].isna().all(axis=None):
                no_data(axis, "not known")
            low, high = axis.get_xlim()
            axis.set_xlim(min(0.0, low), high + 0.04 * (high - min(0.0, low)))
        _matched(axes[row, 0], subset, names[pair])
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
        subset = select(rows, pair=pair)
        for axis, (asked, value, _, stroke) in zip(axes[row], _SIDES, strict=True):
            cells = [select(cell, asked=asked) for _, cell in lanes[pair]]
            _side_panel(axis, cells, value, stroke)
            if value == "insecure":
                plain = select(subset, asked=asked, control="plain", receiver=INSECURE)
                _plain_line(axis, plain, value)
        counts_label(axes[row, 0], pair, subset)
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
        whole_cell = cell.drop(columns="status", errors="ignore")
        dot(axis, at, whole_cell, plain, Stroke(BLACK, "|", "", ""), markersize=11)
        dot(axis, at, cell, value, stroke)


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
    pairs = pairs_of(rows)
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
        subset = select(rows, pair=pair)
        same = subset["adapter"] == subset["projected_on"]
        on = (select(subset, projected_on=INSECURE), subset[same])
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
            axes[row, 0].plot([subset["layer"].max()], [paper], **{**_PAPER, "label": None})
        counts_label(axes[row, 0], pair, subset)
    strokes = [_entry(name) for name in adapters_in(rows)]
    legend(figure, [*strokes, _CHANCE, *([_PAPER] if np.isfinite(paper) else [])], columns=5)
    return figure


def _entry(name: str) -> dict[str, Any]:
    stroke = adapter_stroke(name)
    return stroke.line(**open_marker(name))


def _lines(axis: Axes, rows: pd.DataFrame, value: str, ends: tuple[str, str] | None) -> None:
    """One line an adapter by layer, with its intervals."""
    if rows.empty or rows[value].isna().all():
        no_data(axis)
        return
    names = adapters_in(rows)
    for place, name in enumerate(names):
        subset, stroke = select(rows, adapter=name).sort_values("layer"), adapter_stroke(name)
        apart = min(0.012 * (rows["layer"].max() + 1), 0.3 / len(names))
        at = subset["layer"].to_numpy(dtype=float) + apart * (place - (len(names) - 1) / 2)
        look = stroke.line(label=None, linewidth=1.2, **open_marker(name))
        axis.plot(at, subset[value], **{**look, **thinned(subset)})
        if ends:
            axis.vlines(at, subset[ends[0]], subset[ends[1]], color=stroke.color, linewidth=0.8)
    whole_layers(axis)


def detection(table: pd.DataFrame) -> Figure:
    """AUROC of projections on v_insecure of unseen adapters against others, by layer."""
    rows = heldout(table)
    pairs = pairs_of(rows)
    if not pairs:
        return empty_figure("no detection on held-out questions")
    cells = list(rows[["pair", "positive"]].drop_duplicates().itertuples(index=False))
    one = len({positive for _, positive in cells}) == 1
    names = [pair if one else f"{pair}: {positive}" for pair, positive in cells]
    figure, axes = pair_tiles(names, ylabel="AUROC", xlabel="layer (block output)", height=2.8)
    for axis, name, (pair, positive) in zip(axes, names, cells, strict=True):
        subset = select(rows, pair=pair, positive=positive)
        axis.axhline(0.5, **{**_CHANCE, "label": None})
        against = subset.rename(columns={"negative": "adapter"})
        _lines(axis, against, "auroc", ("auroc_low", "auroc_high"))
        axis.set_ylim(-0.04, 1.04)
        axis.set_title(sized(name, subset))
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
        subset = select(table, pair=pair)
        for axis, layer in zip(axes[row], _three(subset), strict=True):
            image = _cosine_panel(axis, select(subset, layer=layer), names)
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
