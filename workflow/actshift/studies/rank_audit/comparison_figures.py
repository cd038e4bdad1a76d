"""Figures that set the measured models beside something else: published numbers, and gates."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import PAGE_WIDTH, empty_figure, legend, no_data, short
from actshift.report.point import RANK_FLOOR
from actshift.report.style import BLACK, BLUE, GREEN, GREY, MATRICES, ORANGE, RED, Stroke
from actshift.report.tables import mean, select, values

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
    names = [_with_size(row) for _, row in labels.iterrows()]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    entries = [stroke.line(linestyle="") for stroke in MATRICES.values()]
    shade = {"color": "#e9e9e9", "linewidth": 8, "label": "published: other, far larger models"}
    legend(figure, [*entries, shade])
    return figure


def _with_size(row: pd.Series) -> str:
    """A pair's name with what bounds its rank."""
    return f"{short(str(row['pair']), 28)}\nd {row['d']:g}, n {row['n']:g}"


def _summary_panel(
    axis: Axes, rows: pd.DataFrame, labels: pd.DataFrame, column: str, *, log: bool
) -> None:
    """One quantity: a line a pair, a marker a matrix; published rows are open and shaded."""
    ratio = column == "inflation"
    for at, (pair, source) in enumerate(zip(labels["pair"], labels["source"], strict=True)):
        mine, published = select(rows, pair=pair), source == "published"
        if published:
            axis.axhspan(at - 0.5, at + 0.5, color="#f0f0f0", linewidth=0, zorder=0)
        if ratio and not published and _at_floor(mine):
            _floor_text(axis, at)
        else:
            # The ratio stands in both of its rows: one marker is enough.
            shown = select(mine, matrix="naive") if ratio else mine
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
        found = values(select(rows, matrix=matrix), column)
        face = stroke.color if filled else "white"
        line = stroke.line(linestyle="", markersize=6, markerfacecolor=face, markeredgewidth=1.4)
        axis.plot(found, [at + 0.16 * (place - 1.5)] * len(found), **line)


def _floor_text(axis: Axes, at: int) -> None:
    """Say why a ratio is missing."""
    place = ("axes fraction", "data")
    axis.annotate("at the rank floor", (0.12, at), xycoords=place, va="center", color=GREY)


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
    found = [stroke for name, stroke in _VARIANTS.items() if name in set(gated["variant"])]
    entries = [s.line(label=f"{s.label}, 95 % cluster bounds") for s in found]
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
