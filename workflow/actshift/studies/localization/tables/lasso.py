"""Tables `lasso` and `lasso_stability`: a target on the distances of all layers.

Their fit to unseen clusters, and the layers that half of the clusters choose, against a null.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.lasso import contiguous_folds, cross_validated
from actshift.maths.out_of_fold import (
    gain_out,
    out_of_fold,
    permuted_target,
    selection_frequency,
    training_lines,
    training_means,
)
from actshift.maths.resampling import half_samples
from actshift.random_streams import ATTRIBUTION, PERMUTED_TARGETS
from actshift.studies.localization.tables.distances import (
    FOLDS,
    LEAST_CLUSTERS,
    PROBLEMS,
    Problems,
    cluster_folds,
    inner_folds,
    why_not,
)
from actshift.studies.localization.tables.inputs import Rows

HALVES = 500
#: Permutations and their half-samples, at the problem that decides the claim and elsewhere.
CLAIM = ("natural", "last_chosen", "gap")
NULL_CLAIM = (99, 50)
NULL_ELSE = (19, 20)
#: Of the null's largest frequencies.
LEVEL = 0.95
#: Columns of the LASSO's fit that `lasso_stability` repeats.
_OF_FIT = ("support", "r2_out", "r2_out_low", "r2_out_high", "gain_over_length_low")


@dataclass(frozen=True, slots=True)
class Model:
    """A protocol; its folds, `contiguous` as published or whole clusters, choose the penalty."""

    name: str
    folds: str
    l1_ratio: float


#: The one whose fit the stability table repeats.
BY_CLUSTER = Model("lasso", "cluster", 1.0)
MODELS = (
    Model("lasso", "contiguous", 1.0),
    BY_CLUSTER,
    Model("elastic_net", "cluster", 0.5),
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One protocol on the problems of a cell that can be fitted.

    Attributes:
        places: Of the problems in `PROBLEMS`.
        coefficient: Nats (or the target's unit) a standard deviation of the distance.
        alpha: Penalty chosen.
        r2: In sample.
        r2_out: Over pairs of unseen clusters, with interval.
        r2_length: The same of the lengths alone.
        r2_with_length: The same of lengths and distances.
        gain: Difference of the last two, with interval.
    """

    places: tuple[int, ...]
    coefficient: Float[np.ndarray, "problem layer"]
    alpha: Float[np.ndarray, " problem"]
    r2: Float[np.ndarray, " problem"]
    r2_out: Float[np.ndarray, "problem 3"]
    r2_length: Float[np.ndarray, " problem"]
    r2_with_length: Float[np.ndarray, " problem"]
    gain: Float[np.ndarray, "problem 3"]

    @property
    def support(self) -> Int[np.ndarray, " problem"]:
        """Number of layers whose coefficient is not 0."""
        return (self.coefficient != 0).sum(axis=1)

    def columns(self, problem: int) -> dict[str, object]:
        """Columns of one problem that do not depend on the layer; none where it was not fitted."""
        if problem not in self.places:
            return {}
        at = self.places.index(problem)
        return {
            "alpha": self.alpha[at],
            "support": int(self.support[at]),
            "r2": self.r2[at],
            **_with_ends("r2_out", self.r2_out[at]),
            "r2_out_length": self.r2_length[at],
            "r2_out_with_length": self.r2_with_length[at],
            **_with_ends("gain_over_length", self.gain[at]),
        }


def _with_ends(name: str, values: Float[np.ndarray, " 3"]) -> dict[str, object]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def fitted(cell: Problems, model: Model) -> Fitted:
    """Fit one protocol to every problem of a cell."""
    places = tuple(place for place in range(len(PROBLEMS)) if not why_not(cell, place))
    if not places:
        none, triple = np.zeros(0), np.zeros((0, 3))
        return Fitted((), np.zeros((0, cell.layers)), none, none, triple, none, none, triple)
    features = np.stack([cell.norms[PROBLEMS[place][0]] for place in places])
    target = np.stack([cell.targets[PROBLEMS[place][1]] for place in places])
    codes, pairs = cell.codes, len(cell.clusters)
    outer = cluster_folds(codes)
    inner = inner_folds(codes, outer, kind=model.folds)
    folds = outer if model.folds == "cluster" else contiguous_folds(pairs, min(FOLDS, pairs))
    whole = cross_validated(
        features, target, np.tile(folds, (len(places), 1)), l1_ratio=model.l1_ratio
    )
    means = training_means(target, outer, inner >= 0)
    lengths = training_lines(cell.covariates, target, inner >= 0)[:, outer, np.arange(pairs)]
    alone = out_of_fold(features, target, outer, inner, l1_ratio=model.l1_ratio)
    beside = out_of_fold(
        features, target, outer, inner, covariates=cell.covariates, l1_ratio=model.l1_ratio
    )

    def gain(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return gain_out(target, before, after, means, cell.resamples, clusters=int(codes.max()) + 1)

    spread = np.square(target - target.mean(axis=1, keepdims=True)).sum(axis=1)
    return Fitted(
        places=places,
        coefficient=whole.weights,
        alpha=whole.alpha,
        r2=1 - np.square(target - whole.predict(features)).sum(axis=1) / spread,
        r2_out=gain(means, alone),
        r2_length=gain(means, lengths)[:, 0],
        r2_with_length=gain(means, beside)[:, 0],
        gain=gain(lengths, beside),
    )


def predicts(cell: Problems, fits: Fitted, problem: int) -> str:
    """Why the distances of a problem say nothing of its target; empty where they predict it."""
    if problem not in fits.places:
        return why_not(cell, problem)
    at = fits.places.index(problem)
    if not fits.support[at]:
        return "distances do not predict the target: empty support"
    if not fits.r2_out[at, 1] > 0:
        return "distances do not predict the target of unseen clusters"
    if not fits.gain[at, 1] > 0:
        return "distances add nothing to lengths"
    return ""


def lasso_rows(cell: Problems, fits: list[Fitted]) -> Rows:
    """A row for every protocol, position, target and layer; fits are in the order of `MODELS`."""
    rows: Rows = []
    for place, (position, name) in enumerate(PROBLEMS):
        for model, fit in zip(MODELS, fits, strict=True):
            why = predicts(cell, fit, place)
            weights = np.full(cell.layers, np.nan)
            if place in fit.places:
                weights = fit.coefficient[fit.places.index(place)]
            rows += [
                {
                    **cell.facts,
                    "position": position,
                    "target": name,
                    "model": model.name,
                    "folds": model.folds,
                    "layer": layer,
                    "coefficient": weight,
                    **fit.columns(place),
                    "status": "not measured" if why else "decided",
                    "why": why,
                }
                for layer, weight in enumerate(weights)
            ]
    return rows


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

    `folds` are those of every half-sample, -1 outside it; each permutation of the target takes the
    first `null_halves` of them.
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
    """Halves of the clusters, each in folds of whole clusters; -1 outside the half."""
    halves = half_samples(cell.clusters, draws=draws, rng=ATTRIBUTION.rng(cell.seed))
    codes = cell.codes
    folds = np.full(halves.shape, -1, dtype=np.int64)
    for inside, rows in zip(folds, halves, strict=True):
        inside[rows] = cluster_folds(codes[rows])
    return folds


def stability_rows(cell: Problems, fits: Fitted) -> Rows:
    """A row for every position, target and layer; `fits` are of the LASSO with cluster folds."""
    enough = len(set(cell.clusters)) >= LEAST_CLUSTERS
    folds = half_folds(cell, draws=HALVES) if enough else None
    rows: Rows = []
    for place, (position, name) in enumerate(PROBLEMS):
        shared: dict[str, object] = {
            **cell.facts,
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
        of_fit = fits.columns(place)
        shared |= {name: of_fit[name] for name in _OF_FIT} | _of_layers(tested, cell.peak_layer)
        if not why and not tested.stable.any():
            why = "no layer is chosen more often than with permuted targets"
        shared |= {"status": "not measured" if why else "decided", "why": why}
        rows += [{**shared, **_of_layer(tested, layer)} for layer in range(norms.shape[1])]
    return rows


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
