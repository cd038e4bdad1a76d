"""Figures of distances between the two models' states, and of what they predict."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import legend, note
from actshift.report.point import unit
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, Stroke
from actshift.report.tables import first, select, values
from actshift.studies.localization.figures.panels import (
    Panel,
    below,
    conditions_of,
    curve,
    layers_axis,
    panels_by,
    published_coefficients,
    rows_of_panels,
)

#: Whose distances predict: the last token of the chosen answer, as published.
PRIMARY = "last_chosen"
_PLACES = {
    "last_chosen": Stroke(BLUE, "o", "-", "last token of chosen"),
    "last_rejected": Stroke(RED, "s", "--", "last token of rejected"),
    "last_prompt": Stroke(GREEN, "D", "-.", "last token of the prompt"),
}
_TARGETS = (
    Stroke(BLACK, "o", "-", ""),
    Stroke(ORANGE, "s", "--", ""),
    Stroke(PINK, "^", ":", ""),
)
#: Titles of targets; a name that is not here stands as it is.
TARGETS = {"gap": "gap", "gap_per_token": "gap per token", "patch_effect": "patch effect"}


def state_distances(distances: pd.DataFrame, probe: pd.DataFrame | None) -> Figure:
    """Norm of the shift by layer, and how well each layer's norm predicts unseen clusters."""
    panels: list[Panel] = []
    for condition in conditions_of(distances):
        cell = {"condition": condition, "length": "natural"}
        panels += [
            Panel(f"{condition} pairs, distance", cell),
            Panel(f"{condition} pairs, R² out of fold", {**cell, "position": PRIMARY}),
        ]
    figure, cells = rows_of_panels(distances, panels, unit="norm of tuned minus base", sharey=False)
    targets = _targets(probe)
    for axis, panel, pair in cells:
        rows = panel.of(probe if "position" in panel.cell else distances, pair)
        layers_axis(axis, rows)
        if rows.empty:
            continue
        if "position" in panel.cell:
            axis.axhline(0, color=BLACK, linewidth=0.8)
            for at, (target, stroke) in enumerate(targets.items()):
                # Targets that are alike have equal curves.
                curve(axis, select(rows, target=target), "r2_out", stroke, shift=0.1 * (at - 1))
        else:
            for place, stroke in _PLACES.items():
                curve(axis, select(rows, position=place), "norm", stroke)
            axis.set_ylim(bottom=0)
    entries = [stroke.line() for stroke in (*_PLACES.values(), *targets.values())]
    legend(figure, entries, columns=3)
    return figure


def _targets(table: pd.DataFrame | None) -> dict[str, Stroke]:
    """A line for each target, in the order of the table."""
    names = [] if table is None else [str(name) for name in table["target"].unique()]
    return {
        name: stroke._replace(label=f"R²: {TARGETS.get(name, name)}")
        for name, stroke in zip(names, _TARGETS, strict=False)
    }


def _target_panels(table: pd.DataFrame) -> list[Panel]:
    """A panel for each condition and target."""
    targets = dict.fromkeys(str(name) for name in table["target"])
    variants = {TARGETS.get(name, name): {"target": name} for name in targets}
    panels = panels_by(table, variants, length="natural", position=PRIMARY)
    return [Panel(panel.title.replace(", ", ",\n"), panel.cell) for panel in panels]


#: (model, folds that choose the penalty) as the figure draws them.
_MODELS = {
    ("lasso", "contiguous"): Stroke(GREY, "s", "", "lasso as published, folds of rows"),
    ("lasso", "cluster"): Stroke(BLUE, "o", "", "lasso, folds of clusters"),
    ("elastic_net", "cluster"): Stroke(ORANGE, "D", "", "elastic net, folds of clusters"),
}
_PUBLISHED = Stroke(RED, "*", "", "published, by depth (all others 0)")


def lasso_coefficients(lasso: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Coefficients by layer of sparse fits of the target on distances, with their fit."""
    panels = _target_panels(lasso)
    figure, cells = rows_of_panels(lasso, panels, unit="coefficient", sharey=False)
    for axis, panel, pair in cells:
        rows = panel.of(lasso, pair)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        layers_axis(axis, rows)
        if rows.empty:
            continue
        for place, ((model, folds), stroke) in enumerate(_MODELS.items()):
            of_model = select(rows, model=model, folds=folds).sort_values("layer")
            at = of_model["layer"].to_numpy(dtype=float) + 0.22 * (place - 1)
            axis.vlines(at, 0, of_model["coefficient"], color=stroke.color, linewidth=1.6)
            axis.plot(at, of_model["coefficient"], **stroke.line(label=None, markersize=3.5))
        _published_stars(axis, rows, published)
        axis.margins(y=0.6)
        note(axis, _fit(select(rows, model="lasso", folds="cluster")))
        axis.set_xlabel("")
        below(axis, panel, cells, "layer")
    stars = [_PUBLISHED.line(markersize=9)] if any(published_coefficients(published)) else []
    legend(figure, [*(stroke.line(markersize=5) for stroke in _MODELS.values()), *stars])
    return figure


def _published_stars(axis: Axes, rows: pd.DataFrame, published: pd.DataFrame | None) -> None:
    """The paper's coefficients that are not 0, each at its share of the depth."""
    coefficients = published_coefficients(published)
    last = float(rows["layer"].max())
    for layer, value in enumerate(coefficients):
        if value:
            at = layer / (len(coefficients) - 1) * last
            axis.plot(at, value, **_PUBLISHED.line(markersize=7, label=None, zorder=5))


def _fit(rows: pd.DataFrame) -> str:
    """Layers in the support, and how well they predict clusters that were not fitted on."""
    low, high = first(rows, "r2_out_low"), first(rows, "r2_out_high")
    text = f"{first(rows, 'support'):g} of {len(rows)} layers\nR² out {unit(first(rows, 'r2_out'))}"
    return f"{text}\n({unit(low)} to {unit(high)})" if np.isfinite(low) else text


_STABILITY = {
    "frequency": {"color": BLUE, "marker": "s", "linestyle": "", "label": "chosen in half-samples"},
    "null": {"color": BLACK, "linestyle": "--", "linewidth": 1.2,
             "label": "95th percentile of the largest layer, permuted targets"},
    "mean": {"color": GREY, "marker": "_", "linestyle": "", "markersize": 9,
             "label": "permuted targets, mean"},
    "peak": {"color": RED, "marker": "v", "linestyle": "", "label": "layer of the largest patch"},
}  # fmt: skip


def lasso_stability(table: pd.DataFrame) -> Figure:
    """How often each layer is chosen on half-samples of clusters, against permuted targets."""
    panels = _target_panels(table)
    figure, cells = rows_of_panels(table, panels, unit="share of half-samples")
    for axis, panel, pair in cells:
        rows = panel.of(table, pair)
        layers_axis(axis, rows)
        below(axis, panel, cells, "layer")
        axis.set_ylim(0, 1.12)
        if rows.empty:
            continue
        axis.bar(rows["layer"], rows["frequency"], color=BLUE, alpha=0.5, width=0.7, linewidth=0)
        axis.plot(rows["layer"], rows["null_frequency"], **{**_STABILITY["mean"], "label": None})
        null, peak = values(rows, "null_95"), values(rows, "peak_layer")
        if len(null):
            axis.axhline(float(null[0]), **{**_STABILITY["null"], "label": None})
        if len(peak):
            axis.plot(peak[:1], [1.06], **{**_STABILITY["peak"], "label": None})
    legend(figure, list(_STABILITY.values()), columns=4)
    return figure
