"""lasso_stability.csv: which layers the LASSO takes on half of the clusters, against a null."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.out_of_fold import permuted_target, selection_frequency
from actshift.maths.resampling import half_samples
from actshift.random_streams import ATTRIBUTION, PERMUTED_TARGETS
from actshift.studies.localization.tables.lasso import Fitted, predicts
from actshift.studies.localization.tables.targets import (
    LEAST_CLUSTERS,
    PROBLEMS,
    Problems,
    cluster_folds,
)

Rows = list[dict[str, object]]

HALVES = 500
#: Permutations and their half-samples, at the problem that decides the claim and elsewhere.
CLAIM = ("natural", "last_chosen", "gap")
NULL_CLAIM = (99, 50)
NULL_ELSE = (19, 20)
#: Of the null's largest frequencies.
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Stability:
    """Selection frequencies of one problem against permuted targets.

    Attributes:
        frequency: Share of half-samples that take each layer.
        null: The same with permuted targets.
        threshold: 95th percentile of the null's largest layer.
        p: (1 + null maxima at or above the frequency) / (1 + permutations).
    """

    frequency: Float[np.ndarray, " layer"]
    null: Float[np.ndarray, "permutation layer"]
    threshold: float
    p: Float[np.ndarray, " layer"]

    @property
    def stable(self) -> Bool[np.ndarray, " layer"]:
        """Layers taken more often than the null's 95th percentile."""
        return self.frequency > self.threshold


def stability(
    features: Float[np.ndarray, "pair layer"],
    target: Float[np.ndarray, " pair"],
    codes: Int[np.ndarray, " pair"],
    folds: Int[np.ndarray, "half pair"],
    *,
    permutations: int,
    null_halves: int,
    seed: int,
) -> Stability:
    """Selection frequencies, and those of permuted targets through the same code.

    The null takes the first of the same half-samples: fewer of them only add to the spread of its
    frequencies, so its largest one gets larger and the test stricter.

    Args:
        features: One column a layer.
        target: What is predicted.
        codes: Cluster of each pair.
        folds: Folds of every half-sample; -1 outside it.
        permutations: Of the target.
        null_halves: Half-samples of each permutation.
        seed: Of the permutations.
    """
    rng = PERMUTED_TARGETS.rng(seed)
    frequency = selection_frequency(features, target[None], folds)[0]
    null = selection_frequency(
        features,
        permuted_target(target, codes, draws=permutations, rng=rng),
        folds[:null_halves],
    )
    largest = null.max(axis=1)
    above = (largest[:, None] >= frequency).sum(axis=0)
    return Stability(
        frequency=frequency,
        null=null,
        # A value of the null itself: with few permutations an interpolated one would be too low.
        threshold=float(np.quantile(largest, LEVEL, method="higher")),
        p=(1 + above) / (1 + permutations),
    )


def half_folds(cell: Problems, *, draws: int) -> Int[np.ndarray, "half pair"]:
    """Halves of the clusters, each in folds of whole clusters; -1 outside the half.

    Args:
        cell: Of one condition and length.
        draws: Half-samples.
    """
    halves = half_samples(cell.clusters, draws=draws, rng=ATTRIBUTION.rng(cell.seed))
    codes = cell.codes
    folds = np.full(halves.shape, -1, dtype=np.int64)
    for own, rows in zip(folds, halves, strict=True):
        own[rows] = cluster_folds(codes[rows])
    return folds


def stability_rows(cell: Problems, fits: Fitted, *, pair: str) -> Rows:
    """A row for every position, target and layer.

    Args:
        cell: Of one condition and length.
        fits: LASSO with cluster folds.
        pair: Name of the pair of models.

    Returns:
        Columns of `lasso_stability`.
    """
    enough = len(set(cell.clusters)) >= LEAST_CLUSTERS
    folds = half_folds(cell, draws=HALVES) if enough else None
    rows: Rows = []
    for place, (position, name) in enumerate(PROBLEMS):
        shared: dict[str, object] = {
            **cell.facts(pair),
            "position": position,
            "target": name,
            "half_samples": HALVES,
            "peak_layer": cell.peak_layer,
        }
        norms, why = cell.norms[position], predicts(cell, fits, place)
        if folds is None or place not in fits.places:
            shared |= {"half_samples": 0, "permutations": 0, "status": "not measured", "why": why}
            rows += [{**shared, "layer": layer} for layer in range(norms.shape[1])]
            continue
        permutations, halves = NULL_CLAIM if (cell.length, position, name) == CLAIM else NULL_ELSE
        tested = stability(
            norms,
            cell.targets[name],
            cell.codes,
            folds,
            permutations=permutations,
            null_halves=halves,
            seed=cell.seed,
        )
        shared |= {"permutations": permutations, "null_half_samples": halves}
        shared |= _of_fit(fits, place) | _of_layers(tested, cell.peak_layer)
        if not why and not tested.stable.any():
            why = "no layer is chosen more often than with permuted targets"
        shared |= {"status": "not measured" if why else "decided", "why": why}
        rows += [{**shared, **_of_layer(tested, layer)} for layer in range(norms.shape[1])]
    return rows


def _of_fit(fits: Fitted, place: int) -> dict[str, object]:
    kept = ("support", "r2_out", "r2_out_low", "r2_out_high", "gain_over_length_low")
    columns = fits.columns(place)
    return {name: columns[name] for name in kept}


def _of_layers(tested: Stability, peak: int | None) -> dict[str, object]:
    layers = np.flatnonzero(tested.stable)
    quarter = len(tested.stable) // 4
    near = np.abs(layers - peak).min() if peak is not None and len(layers) else np.nan
    return {
        "null_95": tested.threshold,
        "stable_layers": len(layers),
        "layers_beyond_quarter": max(0, len(layers) - quarter),
        "distance_to_peak": near,
    }


def _of_layer(tested: Stability, layer: int) -> dict[str, object]:
    return {
        "layer": layer,
        "frequency": tested.frequency[layer],
        "null_frequency": tested.null[:, layer].mean(),
        "p": tested.p[layer],
        "stable": bool(tested.stable[layer]),
    }
