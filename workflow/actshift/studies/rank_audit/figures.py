"""Figures of the rank audit: size, rank and direction of a shift, and what stands beside it."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, Normal
from matplotlib.patheffects import Stroke as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator

from actshift.report.panels import (
    PAGE_WIDTH,
    empty_figure,
    from_zero,
    legend,
    no_data,
    note,
    pair_rows,
    pair_tiles,
    pairs_of,
    short,
    thinned,
    whole_layers,
)
from actshift.report.point import RANK_FLOOR
from actshift.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INPUTS,
    MATRICES,
    MATRIX_TITLES,
    ORANGE,
    PINK,
    RED,
    Stroke,
)
from actshift.report.tables import mean, select, values
from actshift.vocab import DEFAULT_EPS
from actshift.vocab import MATRICES as MATRIX_NAMES

_HEAT_BOUNDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


def rank_by_layer(rank: pd.DataFrame) -> Figure:
    """rank_eps of the four matrices by layer; harmful and harmless, uncentred and centred."""
    pairs = pairs_of(rank)
    figure, axes = pair_rows(pairs, [MATRIX_TITLES[m] for m in MATRIX_NAMES], ylabel="rank")
    for row, pair in enumerate(pairs):
        for column, matrix in enumerate(MATRIX_NAMES):
            rows = select(rank, pair=pair, matrix=matrix, category="all")
            _rank_panel(axes[row, column], rows)
        from_zero(axes[row], least=2.0)
    entries = [
        stroke.line(label=f"{stroke.label}, {kind}", **changes)
        for stroke in INPUTS.values()
        for kind, changes in (("uncentred", {}), ("centred", _CENTRED))
    ]
    legend(figure, entries)
    return figure


_CENTRED: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white", "linewidth": 1.1}


def _rank_panel(axis: Axes, rows: pd.DataFrame) -> None:
    if rows.empty:
        no_data(axis)
    # Small ranks coincide: the larger squares go below, so that both markers stay visible.
    for inputs, size in (("harmless", 6.5), ("harmful", 3.5)):
        part = select(rows, inputs=inputs) if len(rows) else rows
        line = INPUTS[inputs].line(markersize=size, **thinned(part))
        if len(part):
            axis.plot(part["layer"], part["rank_eps_centered"], **{**line, **_CENTRED})
            axis.plot(part["layer"], part["rank_eps"], **line)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    whole_layers(axis)


def cumulative_variance(table: pd.DataFrame, *, eps: float = DEFAULT_EPS) -> Figure:
    """Share of a shift's energy in its first k directions: a heat map over layer and k.

    Args:
        table: `cumulative_variance.csv`.
        eps: Share of the energy that the rank leaves out; the line is the first k without it.
    """
    pairs = pairs_of(table)
    titles = [MATRIX_TITLES[m] for m in MATRIX_NAMES] + ["template, centred\n(= did, centred)"]
    columns = [(m, "share") for m in MATRIX_NAMES] + [("template", "share_centered")]
    figure, axes = pair_rows(pairs, titles, ylabel="directions k", height=1.9)
    # In steps: a reader can name the share of a cell.
    cmap = mpl.colormaps["cividis"], BoundaryNorm(_HEAT_BOUNDS, 256)
    image = None
    for row, pair in enumerate(pairs):
        harmful = select(table, pair=pair, inputs="harmful")
        harmful = harmful.loc[harmful["k"] <= _last_k(harmful, eps)]
        for column, (matrix, value) in enumerate(columns):
            rows = select(harmful, matrix=matrix)
            image = _heat_panel(axes[row, column], rows, value, cmap, eps) or image
    if image is not None:
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=45, pad=0.02)
        bar.set_label("share of the energy in the first k directions (harmful prompts)")
        bar.set_ticks(list(_HEAT_BOUNDS), labels=[f"{bound:g}" for bound in _HEAT_BOUNDS])
    line = {"color": "white", "linewidth": 2, "path_effects": _outline()}
    legend(figure, [{**line, "label": f"first k that holds {100 * (1 - eps):g}%"}])
    return figure


def _outline() -> list[AbstractPathEffect]:
    """A dark rim, so that the white line is seen on light cells too."""
    return [Outline(linewidth=3.6, foreground=BLACK), Normal()]


def _last_k(rows: pd.DataFrame, eps: float) -> int:
    """The k from which every row holds 1 - eps, uncentred ones at least 99 %, within 5 .. 24."""
    enough = 1 - eps
    open_rows = rows.loc[(rows["share"] < max(0.99, enough)) | (rows["share_centered"] < enough)]
    last = int(open_rows["k"].max()) + 1 if len(open_rows) else 5
    return min(max(last, 5), 24)


def _heat_panel(
    axis: Axes, rows: pd.DataFrame, value: str, cmap: tuple[Colormap, BoundaryNorm], eps: float
) -> ScalarMappable | None:
    """Cells by index, so that any subset of layers and of k is drawn evenly."""
    axis.grid(visible=False)
    if rows.empty:
        no_data(axis)
        return None
    grid = rows.pivot_table(index="k", columns="layer", values=value)
    layers, ks = grid.columns.to_numpy(), grid.index.to_numpy()
    colors, norm = cmap
    image = axis.imshow(
        grid.to_numpy(), origin="lower", aspect="auto", interpolation="nearest",
        cmap=colors, norm=norm, extent=(-0.5, len(layers) - 0.5, 0.5, len(ks) + 0.5),
    )  # fmt: skip
    enough = grid.to_numpy() >= 1 - eps
    first = np.where(enough.any(axis=0), enough.argmax(axis=0) + 1.0, len(ks) + 0.5)
    edges = np.arange(len(layers) + 1) - 0.5
    axis.stairs(first, edges, baseline=None, color="white", linewidth=2, path_effects=_outline())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _label(layers, at)))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda at, _: _label(ks, at - 1)))
    return image


def _label(values: np.ndarray, position: float) -> str:
    """The value at an index, nothing outside the grid."""
    index = round(position)
    return str(values[index]) if 0 <= index < len(values) and index == position else ""


def inflation_by_layer(table: pd.DataFrame) -> Figure:
    """Naive over template rank at equal n on the log scale, with the stability range."""
    pairs = pairs_of(table)
    figure, axes = pair_tiles(
        pairs, ylabel="naive rank / template rank", xlabel="layer (block output)"
    )
    for axis, pair in zip(axes, pairs, strict=True):
        axis.axhline(1, color=GREY, linewidth=1)
        for inputs, stroke in INPUTS.items():
            rows = select(table, pair=pair, inputs=inputs)
            if len(rows):
                _ratio_series(
                    axis, rows, stroke.line(label=None), side=0.08 * (inputs == "harmless")
                )
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        whole_layers(axis)
    floor = {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
    entries = [stroke.line(label=f"{stroke.label}, stability range") for stroke in INPUTS.values()]
    legend(
        figure, [*entries, {**floor, "label": f"open: a rank below {RANK_FLOOR}, not decidable"}]
    )
    return figure


def _ratio_series(axis: Axes, rows: pd.DataFrame, line: dict[str, Any], *, side: float) -> None:
    """Ratios with their range; layers at the rank floor are drawn open."""
    x = rows["layer"].to_numpy() + side
    ratio = rows["ratio"].to_numpy()
    low, high = np.exp(rows["log_ratio_low"]), np.exp(rows["log_ratio_high"])
    color, marker = line["color"], line["marker"]
    axis.plot(x, ratio, color=color, linewidth=0.9)
    axis.vlines(x, low, high, color=color, linewidth=1.3)
    floor = (rows[["rank_naive", "rank_template"]].min(axis=1) < RANK_FLOOR).to_numpy()
    for mask, face in ((~floor, color), (floor, "white")):
        axis.plot(x[mask], ratio[mask], linestyle="", marker=marker, color=color,
                  markerfacecolor=face, markersize=5)  # fmt: skip


def shift_by_layer(rank: pd.DataFrame) -> Figure:
    """Size of the shift relative to the activations, by layer, for the four matrices."""
    pairs = pairs_of(rank)
    figure, axes = pair_tiles(
        pairs, ylabel="‖M‖ / ‖H‖ (harmful prompts)", xlabel="layer (block output)"
    )
    for axis, pair in zip(axes, pairs, strict=True):
        for matrix, stroke in MATRICES.items():
            rows = select(rank, pair=pair, matrix=matrix, inputs="harmful", category="all")
            if len(rows):
                axis.plot(
                    rows["layer"], rows["relative_shift_norm"], **stroke.line(**thinned(rows))
                )
        whole_layers(axis)
    from_zero(axes)
    entries = [stroke.line() for stroke in MATRICES.values()]
    entries[2]["label"] = "aligned (template shift inside the tuned model)"
    legend(figure, entries)
    return figure


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


#: Column of summary.csv, axis label, log scale.
_PANELS = (
    ("mean_rank_eps", "mean rank, uncentred", True),
    ("mean_rank_over_min_dn", "mean rank / min(d, n)", False),
    ("mean_abs_cos_refusal", "mean |cos(u₁, refusal direction)|", False),
    ("inflation", "naive rank / template rank", True),
)


def published_summary(summary: pd.DataFrame) -> Figure:
    """Means over layers of each pair, above the published ones of other, far larger models."""
    rows = select(summary, inputs="harmful")
    if "pooling" in rows:
        rows = rows.loc[rows["pooling"].isna() | rows["pooling"].isin(["last_prompt", ""])]
    labels = rows.drop_duplicates("pair").sort_values("source", kind="stable")
    height = 0.42 * len(labels) + 1.9
    figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    axes = figure.subplots(1, len(_PANELS), sharey=True)
    for axis, (column, title, log) in zip(axes, _PANELS, strict=True):
        _summary_panel(axis, rows, labels, column, log=log)
        axis.set_title(title)
    # A pair's name with what bounds its rank.
    names = [
        f"{short(str(row['pair']), 28)}\nd {row['d']:g}, n {row['n']:g}"
        for _, row in labels.iterrows()
    ]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    entries = [stroke.line(linestyle="") for stroke in MATRICES.values()]
    shade = {"color": "#e9e9e9", "linewidth": 8, "label": "published: other, far larger models"}
    legend(figure, [*entries, shade])
    return figure


def _summary_panel(
    axis: Axes, rows: pd.DataFrame, labels: pd.DataFrame, column: str, *, log: bool
) -> None:
    """One quantity: a line a pair, a marker a matrix; published rows are open and shaded."""
    ratio = column == "inflation"
    for at, (pair, source) in enumerate(zip(labels["pair"], labels["source"], strict=True)):
        of_pair, published = select(rows, pair=pair), source == "published"
        if published:
            axis.axhspan(at - 0.5, at + 0.5, color="#f0f0f0", linewidth=0, zorder=0)
        if ratio and not published and _at_floor(of_pair):
            place = ("axes fraction", "data")
            text = "at the rank floor"
            axis.annotate(text, (0.12, at), xycoords=place, va="center", color=GREY)
        else:
            # The ratio stands in both of its rows: one marker is enough.
            shown = select(of_pair, matrix="naive") if ratio else of_pair
            _markers(axis, shown, column, at, filled=not published)
    if log:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
    else:
        axis.set_xlim(-0.03, 1.05)
    if ratio:
        axis.axvline(1, color=GREY, linewidth=1)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def _markers(axis: Axes, rows: pd.DataFrame, column: str, at: int, *, filled: bool) -> None:
    """One pair's values, a little apart so that equal ones stay visible."""
    for place, (matrix, stroke) in enumerate(MATRICES.items()):
        numbers = values(select(rows, matrix=matrix), column)
        face = stroke.color if filled else "white"
        line = stroke.line(linestyle="", markersize=6, markerfacecolor=face, markeredgewidth=1.4)
        axis.plot(numbers, [at + 0.16 * (place - 1.5)] * len(numbers), **line)


def _at_floor(rows: pd.DataFrame) -> bool:
    """Whether a ratio of the two ranks would say nothing."""
    ranks = [mean(select(rows, matrix=m), "mean_rank_eps") for m in ("naive", "template")]
    return min(ranks) < RANK_FLOOR


_VARIANTS = {
    "base": Stroke(BLUE, "s", "", "base"),
    "chat": Stroke(RED, "o", "", "chat"),
    "comply_lora": Stroke(GREEN, "D", "", "comply_lora"),
    "comply_full": Stroke(ORANGE, "^", "", "comply_full"),
}


def zoo_behaviour(table: pd.DataFrame) -> Figure:
    """Held-out rates of the zoo with 95 % cluster bounds, beside the gates."""
    rows = select(table, split="heldout")
    gated = rows.loc[rows["gate"].notna()] if "gate" in rows else rows
    if gated.empty:
        return empty_figure("no held-out, gated rate of a zoo model in this run")
    panels = gated[["metric", "condition", "kind"]].drop_duplicates().head(6)
    models = _by_recipe(list(dict.fromkeys(gated["model"])))
    figure = Figure(figsize=(PAGE_WIDTH, 0.3 * len(models) + 2.0), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (metric, condition, kind) in zip(axes, panels.to_numpy(dtype=str), strict=True):
        rows = select(gated, metric=metric, condition=condition, kind=kind)
        _rate_panel(axis, rows, models)
        axis.set_title(f"{metric}\n{condition}, {kind}")
        axis.set_xlabel("rate")
    axes[0].set_yticks(range(len(models)), [short(model, 30) for model in models])
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    gate = {"color": BLACK, "marker": "|", "linestyle": "", "markersize": 11, "label": "gate"}
    missed = {"color": BLACK, "marker": "x", "linestyle": "", "markersize": 9, "label": "beyond it"}
    drawn = [stroke for name, stroke in _VARIANTS.items() if name in set(gated["variant"])]
    entries = [s.line(label=f"{s.label}, 95 % cluster bounds") for s in drawn]
    raw = {"color": GREY, "marker": "o", "linestyle": "", "markerfacecolor": "white"}
    every = [*entries, {**raw, "label": "open: bare prompt, no template"}, gate, missed]
    legend(figure, every, columns=5 if len(every) <= 5 else 4)
    return figure


def _by_recipe(models: Sequence[str]) -> list[str]:
    """Models `<recipe>/<variant>` with those of a recipe together, recipes as they first appear."""
    recipes = list(dict.fromkeys(model.split("/")[0] for model in models))
    return sorted(models, key=lambda model: recipes.index(model.split("/")[0]))


def _rate_panel(axis: Axes, rows: pd.DataFrame, models: Sequence[str]) -> None:
    """Rates of one kind of question; several templates of a model lie side by side."""
    if rows.empty:
        no_data(axis)
    for at, model in enumerate(models):
        axis.axhline(at, color="#ececec", linewidth=0.8, zorder=0)
        part = select(rows, model=model)
        for index, (_, row) in enumerate(part.iterrows()):
            y = at + 0.26 * (index - (len(part) - 1) / 2)
            stroke = _VARIANTS.get(str(row["variant"]), Stroke(GREY, "D", "", "other"))
            axis.hlines(y, row["low"], row["high"], color=stroke.color, linewidth=1.6)
            face = "white" if row["template"] == "raw" else stroke.color
            axis.plot(row["rate"], y, **stroke.line(markersize=5.5, markerfacecolor=face))
            axis.plot(_gate(row["gate"]), y, color=BLACK, marker="|", markersize=11)
            if not _passed(row["passed"]):
                axis.plot(row["rate"], y, color=BLACK, marker="x", markersize=9)
    axis.set_xlim(-0.04, 1.04)
    axis.grid(visible=False, axis="y")


def _gate(value: object) -> float:
    """The limit of a gate such as ">= 0.95"."""
    return float(str(value).lstrip("<>=≤≥ "))


def _passed(value: object) -> bool:
    """A CSV's truth value; an empty cell was not judged, which is no miss."""
    return str(value).lower() not in ("false", "0", "0.0")
