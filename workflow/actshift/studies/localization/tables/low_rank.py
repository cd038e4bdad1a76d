"""Table `low_rank`: patches within a basis, beside the full patch, random and base bases."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.studies.localization.settings import DIRECTIONS
from actshift.studies.localization.tables.controls import mean_over_draws
from actshift.studies.localization.tables.effects import Effects, Rows, Sample, blank, joined
from actshift.studies.localization.tables.estimate import Estimate
from actshift.studies.localization.tables.inputs import Lanes
from actshift.studies.localization.tables.interpolation import with_pooled
from actshift.studies.localization.tables.patching import patch_lanes

#: Bases that know nothing of tuning; what they carry any k directions carry.
CONTROLS = ("random", "base_states")
_OVER = ("over_controls", "over_controls_low", "over_controls_high")


@dataclass(frozen=True, order=True)
class Basis:
    """Which directions are patched.

    Attributes:
        name: shift, states, base_states or random.
        keep_rest: Whether the receiver keeps what lies outside them.
        rank: How many.
    """

    name: str
    keep_rest: bool
    rank: int


def low_rank_rows(sample: Sample, bases: pd.DataFrame) -> Rows:
    """One row a direction, basis, `keep_rest`, rank and layer; `layer` is empty for the mean.

    The full patch is the row without basis and rank.

    Args:
        sample: Of a cell.
        bases: `bases.csv`.
    """
    ran = sample.cell.patches.where(experiment="low_rank")
    rows: Rows = []
    for direction in DIRECTIONS:
        for positions in ran.where(direction=direction).values("positions"):
            lanes = ran.where(direction=direction, positions=positions)
            whole = patch_lanes(sample, direction, str(positions))
            layers = [int(layer) for layer in whole.layers]
            full = sample.effects(with_pooled(whole.logp), direction)
            facts: Rows = [
                {"direction": direction, "positions": positions, "layer": layer}
                for layer in (*layers, None)
            ]
            noise = _noise_of_full(sample, full, direction, str(positions))
            effects = {basis: _effects(sample, lanes, basis, direction) for basis in _ran(lanes)}
            rows += _full_rows(sample, full, facts, noise, width=int(bases["d"].iloc[0]))
            of_full = {
                basis: of_basis.effect.over(full.effect) for basis, of_basis in effects.items()
            }
            for basis, of_basis in effects.items():
                measured = [
                    of_basis.columns(),
                    [{"full_effect": float(value)} for value in full.effect.value],
                    of_full[basis].columns("of_full"),
                    over_controls(basis, of_full),
                    noise,
                    _variance(bases, basis, layers),
                ]
                rows += sample.rows(joined(facts, _named(basis, len(facts))), *measured)
    return rows


def over_controls(basis: Basis, of_full: Mapping[Basis, Estimate]) -> Rows:
    """What a basis carries beyond each control basis: the smallest of the differences.

    Args:
        basis: The basis.
        of_full: Share of the full patch's effect, one row a layer, of every basis.

    Returns:
        Smallest value, smallest lower end and smallest upper end, by layer; empty for controls,
        and where a control of the same rank was not run or does not keep the rest.
    """
    beside = [Basis(name, basis.keep_rest, basis.rank) for name in CONTROLS]
    carried = of_full[basis]
    if basis.name in CONTROLS or not set(beside) <= of_full.keys():
        return [blank(*_OVER) for _ in carried.value]
    over = [carried - of_full[control] for control in beside]
    smallest = np.min([[difference.value, *difference.ends.T] for difference in over], axis=0)
    return [dict(zip(_OVER, (float(end) for end in ends), strict=True)) for ends in smallest.T]


def _ran(lanes: Lanes) -> list[Basis]:
    facts = lanes.facts.drop_duplicates(["basis", "keep_rest", "rank"])
    return [
        Basis(str(name), bool(keep), int(rank))
        for name, keep, rank in zip(facts["basis"], facts["keep_rest"], facts["rank"], strict=True)
    ]


def _effects(sample: Sample, lanes: Lanes, basis: Basis, direction: str) -> Effects:
    of_basis = lanes.where(basis=basis.name, keep_rest=basis.keep_rest, rank=basis.rank).by_layer()
    return sample.effects(with_pooled(of_basis.logp), direction)


def _named(basis: Basis, count: int) -> Rows:
    return [
        {"basis": basis.name, "keep_rest": basis.keep_rest, "rank": basis.rank}
        for _ in range(count)
    ]


def _noise_of_full(sample: Sample, full: Effects, direction: str, positions: str) -> Rows:
    """Effect of Gaussian noise over that of the full patch: what disruption alone gives."""
    cell = {"experiment": "noise", "direction": direction, "positions": positions}
    lanes = sample.cell.patches.where(**cell)
    if not len(lanes):
        return [{"noise_of_full": None} for _ in full.effect.value]
    noise = sample.effects(with_pooled(mean_over_draws(lanes)), direction)
    return [{"noise_of_full": float(value)} for value in noise.effect.over(full.effect).value]


def _full_rows(sample: Sample, full: Effects, facts: Rows, noise: Rows, *, width: int) -> Rows:
    """The patch itself as the row of full rank."""
    count = len(facts)
    whole: dict[str, object] = {
        "basis": None,
        "keep_rest": None,
        "rank": None,
        "d": width,
        "k_over_d": 1.0,
        **blank(*_OVER),
        "share_of_variance": 1.0,
        "share_of_variance_fit": 1.0,
    }
    measured = [
        full.columns(),
        [{"full_effect": float(value)} for value in full.effect.value],
        full.effect.over(full.effect).columns("of_full"),
        noise,
    ]
    return sample.rows(joined(facts, [whole] * count), *measured)


def _variance(bases: pd.DataFrame, basis: Basis, layers: list[int]) -> Rows:
    """Shares of the squared norm in the basis: of unseen clusters, and of those it is fitted on.

    Folds are weighted by their tokens; the last row is the mean over layers.
    """
    of_basis = bases.loc[(bases["basis"] == basis.name) & (bases["k"] == basis.rank)]
    held = [_weighted(of_basis, layer, "share", "n") for layer in layers]
    fitted = [_weighted(of_basis, layer, "share_fit", "n_fit") for layer in layers]
    width = int(bases["d"].iloc[0])
    return [
        {
            "d": width,
            "k_over_d": basis.rank / width,
            "share_of_variance": share,
            "share_of_variance_fit": share_fit,
        }
        for share, share_fit in zip(
            _and_mean(held).tolist(), _and_mean(fitted).tolist(), strict=True
        )
    ]


def _weighted(rows: pd.DataFrame, layer: int, column: str, weight: str) -> float:
    of_layer = rows.loc[rows["layer"] == layer]
    return (
        float(np.average(of_layer[column], weights=of_layer[weight]))
        if len(of_layer)
        else float("nan")
    )


def _and_mean(values: list[float]) -> Float[np.ndarray, " more"]:
    return np.append(values, np.mean(values))
