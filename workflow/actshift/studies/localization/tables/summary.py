"""Table `summary`: one number a question, each with the numbers that its claim requires."""

import numpy as np

from actshift.maths.attribution import centre_of_mass, effective_number, unit_depths
from actshift.studies.localization.settings import DIRECTIONS
from actshift.studies.localization.tables.controls import mean_over_draws
from actshift.studies.localization.tables.effects import Effects, Rows, Sample, blank
from actshift.studies.localization.tables.estimate import Estimate
from actshift.studies.localization.tables.patching import OPERATIONS, curves
from actshift.studies.localization.tables.positions import Curve

_EMPTY = blank(
    *("operation", "direction", "positions", "layer"),
    *("peak", "peak_low", "last_layer_share", "n_eff_over_layers"),
)
#: Statistic of a control at the peak of the plain patch; each over what.
_BESIDE = {"genericity": "shuffled", "other_condition_share": "other_condition"}


def summary_rows(sample: Sample) -> Rows:
    """All statistics of a cell.

    Args:
        sample: Of a cell.
    """
    by_curve = {key: Curve.of(sample, *key) for key in curves(sample)}
    rows = [_row(sample, "gap", sample.gap)]
    for operation in OPERATIONS:
        rows += _unit_rows(sample, operation)
    for (direction, positions), curve in by_curve.items():
        if direction == "forward":
            rows += _forward_rows(sample, curve, by_curve.get(("reverse", positions)), positions)
    for (direction, positions), curve in by_curve.items():
        where = {"direction": direction, "positions": positions, **_peak_columns(curve)}
        share = curve.found.share.at([-1])
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

    Args:
        sample: Of a cell.
        operation: insert or remove.

    Returns:
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
        back = curve.at_peak(reverse.found.effect)
        size = Estimate(np.abs(back.value), np.abs(back.draws), back.clusters)
        rows.append(_row(sample, "reverse_over_forward", curve.over_peak(size), **where))
    return rows


def _beside_rows(sample: Sample, direction: str, by_curve: dict[tuple[str, str], Curve]) -> Rows:
    """Donors reading another pair: of the same condition over the peak, of another as its share."""
    rows: Rows = []
    for statistic, control in _BESIDE.items():
        ran = sample.cell.patches.where(experiment=control, direction=direction)
        for positions in ran.values("positions"):
            curve = by_curve[direction, str(positions)]
            logp = mean_over_draws(ran.where(positions=positions))
            beside = sample.effects(logp, direction)
            value = (
                curve.over_peak(curve.at_peak(beside.towards))
                if statistic == "genericity"
                else curve.at_peak(beside.share)
            )
            where = {"direction": direction, "positions": positions, **_peak_columns(curve)}
            rows.append(_row(sample, statistic, value, **where))
    return rows


def _peak_columns(curve: Curve) -> dict[str, object]:
    known = curve.found.decided
    return {
        "layer": int(curve.layers[curve.place]) if known else None,
        "peak": float(curve.peak.value[0]),
        "peak_low": float(curve.peak.ends[0, 0]),
        "last_layer_share": curve.last_share,
    }


def _row(sample: Sample, statistic: str, value: Estimate, **columns: object) -> dict[str, object]:
    facts = {**_EMPTY, "statistic": statistic, **columns}
    return sample.rows([facts], value.columns("value"))[0]
