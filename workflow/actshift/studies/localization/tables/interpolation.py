"""Table `interpolation`: a growing share of donor states mixed in, layer by layer and pooled."""

import numpy as np
from jaxtyping import Float

from actshift.studies.localization.settings import DIRECTIONS
from actshift.studies.localization.tables.effects import Rows, Sample, blank
from actshift.studies.localization.tables.estimate import following
from actshift.studies.localization.tables.inputs import Lanes


def interpolation_rows(sample: Sample) -> Rows:
    """One row a direction, layer and weight alpha; `layer` is empty for the mean over layers.

    step = effect(alpha_i) - effect(alpha_{i-1}), positive towards the donor.

    Args:
        sample: Of a cell.
    """
    ran = sample.cell.patches.where(experiment="interpolation")
    rows: Rows = []
    for direction in DIRECTIONS:
        for positions in ran.where(direction=direction).values("positions"):
            lanes = ran.where(direction=direction, positions=positions)
            alphas = np.sort(np.asarray(lanes.values("alpha"), dtype=np.float64))
            layers = [int(layer) for layer in np.unique(lanes.layers)]
            ladder = with_pooled(np.stack([_at(lanes, float(alpha)) for alpha in alphas], axis=1))
            for logp, layer in zip(ladder, (*layers, None), strict=True):
                rows += _rows(sample, logp, alphas, direction, str(positions), layer)
    return rows


def with_pooled(logp: Float[np.ndarray, "layer ..."]) -> Float[np.ndarray, "pooled ..."]:
    """The mean over layers below the layers; means of log-probs give means of effects.

    Args:
        logp: One entry a layer.
    """
    return np.concatenate([logp, logp.mean(axis=0, keepdims=True)])


def _at(lanes: Lanes, alpha: float) -> Float[np.ndarray, "layer pair 2"]:
    return lanes.where(alpha=alpha).by_layer().logp


def _rows(
    sample: Sample,
    logp: Float[np.ndarray, "alpha pair 2"],
    alphas: Float[np.ndarray, " alpha"],
    direction: str,
    positions: str,
    layer: int | None,
) -> Rows:
    effects = sample.effects(logp, direction)
    facts: Rows = [
        {"direction": direction, "positions": positions, "layer": layer, "alpha": float(alpha)}
        for alpha in alphas
    ]
    steps = following(effects.towards).columns("step")
    # The smallest weight has no step before it.
    steps[0] = blank(*steps[0])
    return sample.rows(facts, effects.with_share(), steps)
