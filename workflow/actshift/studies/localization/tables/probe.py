"""probe.csv: one layer's distance against a target, by a line."""

import numpy as np
from jaxtyping import Float

from actshift.maths.attribution import Probes, probes
from actshift.maths.intervals import finite_ends
from actshift.maths.out_of_fold import gain_out, training_means
from actshift.studies.localization.tables.targets import (
    LEAST_CLUSTERS,
    PROBLEMS,
    Problems,
    cluster_folds,
)

Rows = list[dict[str, object]]


def probe_rows(cell: Problems, *, pair: str) -> Rows:
    """A line for every position, target and layer.

    Args:
        cell: Of one condition and length.
        pair: Name of the pair of models.

    Returns:
        Columns of `probe`. Intervals resample clusters; that of `r2_out` resamples the squared
        errors of pairs that their line never saw.
    """
    count = len(set(cell.clusters))
    weights = cell.resamples.astype(np.float64)
    rows: Rows = []
    for position, name in PROBLEMS:
        norms, target = cell.norms[position], cell.targets[name]
        whole = probes(norms, target, np.ones(len(target)))
        drawn = probes(norms, target, weights)
        slope = finite_ends(drawn.slope.T, clusters=count)
        r2 = finite_ends(drawn.r2.T, clusters=count)
        out = _out(cell, norms, target)
        rows += [
            {
                **cell.facts(pair),
                "position": position,
                "target": name,
                "layer": layer,
                "slope": whole.slope[layer],
                "slope_low": slope[layer, 0],
                "slope_high": slope[layer, 1],
                "intercept": whole.intercept[layer],
                "r2": whole.r2[layer],
                "r2_low": r2[layer, 0],
                "r2_high": r2[layer, 1],
                "r2_out": out[layer, 0],
                "r2_out_low": out[layer, 1],
                "r2_out_high": out[layer, 2],
            }
            for layer in range(norms.shape[1])
        ]
    return rows


def predicted_out(
    norms: Float[np.ndarray, "pair layer"],
    target: Float[np.ndarray, " pair"],
    outer: np.ndarray,
) -> Float[np.ndarray, "layer pair"]:
    """Each layer's line at pairs of another fold; the training mean where the line has no slope.

    Args:
        norms: One column a layer.
        target: What is predicted.
        outer: Fold of each pair.
    """
    training = outer != np.arange(int(outer.max()) + 1)[:, None]
    lines_of: Probes = probes(norms, target, training.astype(np.float64))
    means = training_means(target[None], outer, training)
    lines = (lines_of.slope[outer] * norms + lines_of.intercept[outer]).T
    return np.where(np.isfinite(lines), lines, means)


def _out(
    cell: Problems,
    norms: Float[np.ndarray, "pair layer"],
    target: Float[np.ndarray, " pair"],
) -> Float[np.ndarray, "layer 3"]:
    layers = norms.shape[1]
    if len(set(cell.clusters)) < LEAST_CLUSTERS:
        return np.full((layers, 3), np.nan)
    outer = cluster_folds(cell.codes)
    training = outer != np.arange(int(outer.max()) + 1)[:, None]
    whole = np.broadcast_to(target, (layers, len(target)))
    means = training_means(whole, outer, training)
    after = predicted_out(norms, target, outer)
    count = len(set(cell.clusters))
    return gain_out(whole, means, after, means, cell.resamples, clusters=count)
