"""Tables `positions` and `summary`: curves over layers in few numbers, and one a question."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.attribution import centre_of_mass, effective_number, unit_depths
from actshift.studies.localization.lanes import DIRECTIONS
from actshift.studies.localization.tables.effects import (
    Effects,
    Estimate,
    Sample,
    blank,
    chosen_rows,
    peak_of,
)
from actshift.studies.localization.tables.inputs import Rows
from actshift.studies.localization.tables.patches import OPERATIONS, by_draw, groups

_EMPTY = blank(
    *("operation", "direction", "positions", "layer"),
    *("peak", "peak_low", "last_layer_share", "n_eff_over_layers"),
)
#: Statistic of a control at the peak of the plain patch; each over what.
_BESIDE = {"genericity": "shuffled", "other_condition_share": "other_condition"}


@dataclass(frozen=True, eq=False)
class Curve:
    """Effects of the plain patch over layers, for one direction and choice of positions."""

    layers: Int[np.ndarray, " layer"]
    effects: Effects

    @cached_property
    def top(self) -> tuple[Estimate, Int[np.ndarray, " draw"], int]:
        """The peak, taken anew on each resample, and its rows."""
        return peak_of(self.effects.towards)

    @property
    def place(self) -> int:
        """Row of the peak."""
        return self.top[2]

    @property
    def peak(self) -> Estimate:
        """Effect at the peak's layer, towards the donor, nats.

        Its interval is that of this one layer: a maximum taken anew would lie above 0 for noise.
        """
        return self.effects.towards.at([self.place])

    @property
    def last(self) -> Estimate:
        """Effect at the last layer, towards the donor, nats."""
        return self.effects.towards.at([-1])

    @property
    def last_share(self) -> float:
        """Share of the gap at the last layer."""
        return float(self.effects.share.value[-1])

    @cached_property
    def edge_over_peak(self) -> Estimate:
        """E(last) / max_l E(l), the maximum taken anew on each resample."""
        return self.over_peak(self.last)

    def over_peak(self, above: Estimate) -> Estimate:
        """One row over the peak; none where the peak is not above 0."""
        top = self.top[0]
        return above.over(top).known_as(bool(top.ends[0, 0] > 0))

    def at_peak(self, other: Estimate) -> Estimate:
        """Another curve at the layer of this curve's peak, which each resample has its own of."""
        _, places, place = self.top
        return chosen_rows(other, places, place)


def curves_of(sample: Sample) -> dict[tuple[str, str], Curve]:
    """The curve of every direction and choice of positions."""
    curves = {}
    for direction, positions, lanes in groups(sample.cell.patches.where(experiment="patch")):
        by_layer = lanes.by_layer()
        effects = sample.effects(by_layer.logp, direction)
        curves[direction, positions] = Curve(by_layer.layers, effects)
    return curves


def position_rows(sample: Sample) -> Rows:
    """One row a direction and choice of positions: the peak, the last layer, how they compare."""
    rows: Rows = []
    curves = curves_of(sample)
    for (direction, positions), curve in curves.items():
        everywhere = curves.get((direction, "all"))
        facts: dict[str, object] = {
            "direction": direction,
            "positions": positions,
            **_facts(curve, decided=sample.decided),
        }
        of_all = [blank("of_all", "of_all_low", "of_all_high")]
        if everywhere is not None:
            of_all = curve.last.over(everywhere.last).columns("of_all")
        rows += sample.rows(
            [facts],
            curve.peak.columns("peak"),
            curve.last.columns("last_layer"),
            curve.edge_over_peak.columns("edge_over_peak"),
            of_all,
        )
    return rows


def _facts(curve: Curve, *, decided: bool) -> dict[str, object]:
    if not decided:
        return blank("peak_layer", "interior", "peak_share", "last_layer_share", "top_quarter")
    return {
        "peak_layer": int(curve.layers[curve.place]),
        "interior": int(curve.place < len(curve.layers) - 1),
        "peak_share": float(curve.effects.share.value[curve.place]),
        "last_layer_share": curve.last_share,
        "top_quarter": top_quarter(curve.effects.towards.value),
    }


def top_quarter(effects: Float[np.ndarray, " layer"]) -> float:
    """Positive effects of the best quarter of the layers over all positive effects.

    A diffuse linear ramp has .43 to .52, so it is shown and decides nothing. NaN where no effect is
    positive. A quarter is rounded down, at least one layer.
    """
    kept = np.sort(np.maximum(effects, 0.0))[::-1]
    total = float(kept.sum())
    return float(kept[: max(1, len(kept) // 4)].sum()) / total if total > 0 else float("nan")


def summary_rows(sample: Sample) -> Rows:
    """All statistics of a cell, each with the numbers that its claim requires."""
    by_curve = curves_of(sample)
    rows = [_row(sample, "gap", sample.gap)]
    for operation in OPERATIONS:
        rows += _unit_rows(sample, operation)
    for (direction, positions), curve in by_curve.items():
        if direction == "forward":
            rows += _forward_rows(sample, curve, by_curve.get(("reverse", positions)), positions)
    for (direction, positions), curve in by_curve.items():
        where = {"direction": direction, "positions": positions, **_peak_columns(curve)}
        share = curve.effects.share.at([-1])
        rows.append(
            _row(sample, "last_layer_share", share, **{**where, "layer": int(curve.layers[-1])})
        )
    for direction in DIRECTIONS:
        rows += _beside_rows(sample, direction, by_curve)
    return rows


def _unit_rows(sample: Sample, operation: str) -> Rows:
    """How many units carry the preference, and where, from the swaps of embeddings, blocks, head.

    n_eff = (sum e+)^2 / sum (e+)^2, centre = sum e+ x / sum e+ with the depths x of
    `maths.attribution.unit_depths`.
    """
    units = unit_effects(sample, operation)
    if units is None:
        return []
    layers = len(units.towards.value) - 2
    by_unit, drawn = units.towards.value, units.towards.draws.T
    clusters = sample.gap.clusters
    number = Estimate(
        np.atleast_1d(effective_number(by_unit)), effective_number(drawn)[None, :], clusters
    )
    depths = unit_depths(layers)
    off = Estimate(
        np.abs(np.atleast_1d(centre_of_mass(by_unit, depths)) - 0.5),
        np.abs(centre_of_mass(drawn, depths)[None, :] - 0.5),
        clusters,
    )
    total = Estimate(
        units.share.value.sum(keepdims=True), units.share.draws.sum(axis=0)[None, :], clusters
    )
    over_layers = number.times(1 / layers)
    shared: dict[str, object] = {
        "operation": operation,
        "n_eff_over_layers": float(over_layers.value[0]),
    }
    return [
        _row(sample, "n_eff_over_layers", over_layers, **shared),
        _row(sample, "n_eff_over_units", number.times(1 / (layers + 2)), **shared),
        _row(sample, "centre_off_middle", off, **shared),
        _row(sample, "sum_of_shares", total, **shared),
    ]


def unit_effects(sample: Sample, operation: str) -> Effects | None:
    """Swaps of embeddings, every block and head, in the order of `unit_depths`.

    None where a kind of unit was not swapped.
    """
    units = sample.cell.swaps.where(operation=operation)
    parts = [units.where(part=part).by_layer() for part in ("embeddings", "block", "head")]
    if not all(len(part) for part in parts):
        return None
    return sample.effects(np.concatenate([part.logp for part in parts]), operation)


def _forward_rows(sample: Sample, curve: Curve, reverse: Curve | None, positions: str) -> Rows:
    where = {"direction": "forward", "positions": positions, **_peak_columns(curve)}
    rows = [_row(sample, "edge_over_peak", curve.edge_over_peak, **where)]
    if reverse is not None:
        # The size alone: a reverse effect away from the donor would be one too.
        back = curve.at_peak(reverse.effects.effect)
        size = Estimate(np.abs(back.value), np.abs(back.draws), back.clusters)
        rows.append(_row(sample, "reverse_over_forward", curve.over_peak(size), **where))
    return rows


def _beside_rows(sample: Sample, direction: str, by_curve: dict[tuple[str, str], Curve]) -> Rows:
    """Donors reading another pair: of the same condition over the peak, of another as its share."""
    rows: Rows = []
    for statistic, control in _BESIDE.items():
        ran = sample.cell.patches.where(experiment=control, direction=direction)
        for _, positions, lanes in groups(ran):
            curve = by_curve[direction, positions]
            beside = sample.effects(by_draw(lanes).mean(axis=1), direction)
            value = (
                curve.over_peak(curve.at_peak(beside.towards))
                if statistic == "genericity"
                else curve.at_peak(beside.share)
            )
            where = {"direction": direction, "positions": positions, **_peak_columns(curve)}
            rows.append(_row(sample, statistic, value, **where))
    return rows


def _peak_columns(curve: Curve) -> dict[str, object]:
    known = curve.effects.decided
    return {
        "layer": int(curve.layers[curve.place]) if known else None,
        "peak": float(curve.peak.value[0]),
        "peak_low": float(curve.peak.ends[0, 0]),
        "last_layer_share": curve.last_share,
    }


def _row(sample: Sample, statistic: str, value: Estimate, **columns: object) -> dict[str, object]:
    facts = {**_EMPTY, "statistic": statistic, **columns}
    return sample.rows([facts], value.columns("value"))[0]
