"""Figures of the calibration networks: ablation curves, the lottery of the bias, ranks and gaps."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from actshift.maths.gap import KAPPA_THRESHOLD
from actshift.report.panels import PAGE_WIDTH, legend, no_data
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY, Stroke
from actshift.report.tables import select, values

_PRINCIPAL = Stroke(BLUE, "o", "-", "principal directions, mean over seeds")
_RANDOM = Stroke(GREY, "s", "--", "random directions (band: all seeds and draws)")
_PUBLISHED = Stroke(RED, "D", ":", "published mean at the shown seeds")
_BIAS_ONLY = Stroke(BLACK, "", "-.", "answer of the bias alone, mean over seeds")
_CONTROL = Stroke(GREEN, "^", "--", "control inputs answered 0, same projection")
_SIGNS = {
    1: Stroke(RED, "^", "none", "readout bias above 0: alone it gives the unsafe answer"),
    -1: Stroke(BLUE, "v", "none", "readout bias below 0: alone it gives the safe answer"),
}


#: One look a variant: the lambdas go from light to strong.
_LOOKS = {
    ("steering", 0.0): {"color": GREY, "marker": "x"},
    ("full_finetune", 0.0): {"color": BLACK, "marker": "o"},
    ("distributed", 0.5): {"color": SKY, "marker": "D"},
    ("distributed", 5.0): {"color": BLUE, "marker": "s"},
    ("distributed", 15.0): {"color": GREEN, "marker": "v"},
    ("distributed", 50.0): {"color": RED, "marker": "^"},
}


def variants_of(table: pd.DataFrame) -> list[tuple[str, float]]:
    """(variant, lambda) in the order of the table."""
    return [(str(v), float(w)) for v, w in table[["variant", "lambda"]].drop_duplicates().values]


def variant_title(variant: str, weight: float) -> str:
    """How a panel calls a variant."""
    name = variant.replace("full_finetune", "full fine-tune")
    return f"{name}, λ {weight:g}" if weight else name


def calibration_compliance(ablation: pd.DataFrame) -> Figure:
    """Compliance against r: principal and random directions, published means, the bias alone."""
    figure, axes = _panels(ablation, "compliance", "directions projected out, r")
    for axis, rows in axes:
        principal = select(rows, projection="principal")
        random = select(rows, projection="random")
        if len(random):
            draws = random.groupby("ablated_rank")["compliance"]
            axis.fill_between(
                _spaced(rows, draws.min().index), draws.min(), draws.max(),
                color=GREY, alpha=0.2, lw=0,
            )  # fmt: skip
            _curve(axis, rows, draws.mean(), _RANDOM)
        for _, of_seed in principal.groupby("seed"):
            curve = of_seed.set_index("ablated_rank")["compliance"]
            axis.plot(_spaced(rows, curve.index), curve, color=BLUE, alpha=0.25, linewidth=0.8)
        by_rank = principal.groupby("ablated_rank")
        _curve(axis, rows, by_rank["compliance"].mean(), _PRINCIPAL)
        _curve(axis, rows, by_rank["answered_0_control"].mean(), _CONTROL)
        _curve(axis, rows, by_rank["compliance_published"].mean().dropna(), _PUBLISHED)
        alone = float(principal.drop_duplicates("seed")["compliance_bias_only"].mean())
        axis.axhline(alone, **_BIAS_ONLY.line(label=None, marker=None))
        _rank_ticks(axis, rows)
    strokes = (_PRINCIPAL, _PUBLISHED, _RANDOM, _CONTROL, _BIAS_ONLY)
    legend(figure, [stroke.line() for stroke in strokes], columns=3)
    return figure


def calibration_bias_sign(ablation: pd.DataFrame) -> Figure:
    """One marker a seed and r, coloured by the sign of the readout bias."""
    principal = select(ablation, projection="principal")
    figure, axes = _panels(principal, "compliance", "directions projected out, r")
    for axis, rows in axes:
        seeds = sorted(rows["seed"].unique())
        for seed, of_seed in rows.groupby("seed"):
            sign = 1 if float(of_seed["bias"].iloc[0]) > 0 else -1
            # Side by side within a rank, so that equal values stay visible.
            shift = (seeds.index(seed) - (len(seeds) - 1) / 2) * 0.6 / max(len(seeds), 1)
            at = _spaced(rows, of_seed["ablated_rank"]) + shift
            axis.plot(at, of_seed["compliance"], **_SIGNS[sign].line(label=None, markersize=3.5))
        _rank_ticks(axis, rows)
    legend(figure, [stroke.line() for stroke in _SIGNS.values()], columns=2)
    return figure


def calibration_rank_and_gap(
    ablation: pd.DataFrame, rank: pd.DataFrame, gap: pd.DataFrame
) -> Figure:
    """Rank by layer, random against principal damage in logits, and kappa under its bound."""
    figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _rank_panel(left, select(rank, inputs="safety"))
    _logit_panel(middle, select(ablation, projection="principal"))
    _gap_panel(right, gap)
    return figure


def _rank_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """Rho by layer: the mean over layers hides that the ablated last layer has the least."""
    for variant, weight in variants_of(rows):
        mean = _variant(rows, variant, weight).groupby("layer")["rho_eps"].mean()
        axis.plot(mean, **_look(variant, weight))
    axis.set(title="rank by layer, safety inputs", xlabel="hidden layer", ylabel="rank / 128")
    axis.set_xticks(sorted(rows["layer"].unique()))
    axis.legend(fontsize=7, loc="upper right")
    axis.set_xlim(right=3.6)


def _logit_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """Distance of the mean logit from the bias, by r: what is left of the network's answer."""
    for variant, weight in variants_of(rows):
        of_variant = _variant(rows, variant, weight)
        mean = of_variant.groupby("ablated_rank")["mean_logit_minus_bias"].mean()
        axis.plot(_spaced(rows, mean.index), mean, **_look(variant, weight))
    axis.axhline(0, color=BLACK, linewidth=1)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set(title="mean logit minus bias", xlabel="directions projected out, r", ylabel="logit")
    _rank_ticks(axis, rows)
    axis.legend(fontsize=7)


def _look(variant: str, weight: float) -> dict[str, Any]:
    """Colour, marker and label of a variant's line."""
    look = _LOOKS.get((variant, weight), {"color": ORANGE, "marker": "P"})
    return {**look, "label": variant_title(variant, weight), "clip_on": False}


def _gap_panel(axis: Axes, rows: pd.DataFrame) -> None:
    """Kappa against the rank of the separation, under 2 / (eps r)."""
    shown = rows[rows["rank_S"] > 0]
    if shown.empty:
        no_data(axis)
        return
    colours = dict(zip(sorted(shown["honest"].unique()), (BLUE, RED), strict=False))
    for honest, of_network in shown.groupby("honest"):
        axis.plot(
            of_network["rank_S"], of_network["kappa"], "o", markersize=3.5, color=colours[honest],
            label="honest: " + _honest_title(str(honest)),
        )  # fmt: skip
    bound = shown.drop_duplicates("rank_S").sort_values("rank_S")
    axis.plot(bound["rank_S"], bound["kappa_bound"], color=BLACK, label="bound 2 / (ε r)")
    axis.axhline(
        KAPPA_THRESHOLD, color=GREY, linestyle="--", label=f"threshold {KAPPA_THRESHOLD:g}"
    )
    axis.set(xscale="log", yscale="log", title="spectral gap", xlabel="rank of S, r", ylabel="κ")
    for side in (axis.xaxis, axis.yaxis):  # the default writes powers in math, which is off
        side.set_major_formatter("{x:g}")
        side.set_minor_formatter(NullFormatter())
    axis.set_xticks([2, 5, 10, 20, 50])
    axis.set_ylim(top=400)  # room for the legend above the threshold
    axis.legend(fontsize=7, loc="upper right")


def _honest_title(name: str) -> str:
    """A network's name as the panels write it: `distributed_5` -> distributed, λ 5."""
    variant, _, weight = name.rpartition("_")
    return variant_title(variant, float(weight)) if weight.isdigit() else variant_title(name, 0.0)


def _panels(
    table: pd.DataFrame, ylabel: str, xlabel: str
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """One panel a variant, three in a row, and the rows it shows."""
    variants = variants_of(table)
    rows = -(-len(variants) // 3)
    figure = Figure(figsize=(PAGE_WIDTH, 2.5 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False, sharey=True).ravel()
    for axis in axes[len(variants) :]:
        axis.set_visible(False)
    panels = []
    for axis, (variant, weight) in zip(axes, variants, strict=False):
        axis.set(title=variant_title(variant, weight), xlabel=xlabel, ylim=(-0.04, 1.06))
        panels.append((axis, _variant(table, variant, weight)))
    for axis in axes[::3]:
        axis.set_ylabel(ylabel)
    return figure, panels


def _variant(table: pd.DataFrame, variant: str, weight: float) -> pd.DataFrame:
    return table[(table["variant"] == variant) & (table["lambda"] == weight)]


def _spaced(rows: pd.DataFrame, ranks: Any) -> np.ndarray:
    """Ranks as equally spaced places: 1 and 120 would not share a linear axis."""
    return np.searchsorted(np.unique(values(rows, "ablated_rank")), np.asarray(ranks)).astype(float)


def _rank_ticks(axis: Axes, rows: pd.DataFrame) -> None:
    ranks = np.unique(values(rows, "ablated_rank"))
    axis.set_xticks(np.arange(len(ranks)), [f"{rank:g}" for rank in ranks])


def _curve(axis: Axes, rows: pd.DataFrame, curve: pd.Series, stroke: Stroke) -> Line2D:
    return axis.plot(_spaced(rows, curve.index), curve, **stroke.line(label=None))[0]
