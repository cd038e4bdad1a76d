"""lasso.csv: a target on the distances of all layers, with its fit to unseen clusters."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.lasso import contiguous_folds, cross_validated
from actshift.maths.out_of_fold import gain_out, out_of_fold, training_lines, training_means
from actshift.studies.localization.tables.targets import (
    FOLDS,
    PROBLEMS,
    Problems,
    cluster_folds,
    inner_folds,
    why_not,
)

Rows = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Model:
    """A protocol.

    Attributes:
        name: lasso or elastic_net.
        folds: That choose the penalty: `contiguous`, as published, or whole clusters.
        l1_ratio: 1 for the LASSO.
    """

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
        """Columns of one problem that do not depend on the layer; none where it was not fitted.

        Args:
            problem: Place in `PROBLEMS`.
        """
        if problem not in self.places:
            return {}
        at = self.places.index(problem)
        return {
            "alpha": self.alpha[at],
            "support": int(self.support[at]),
            "r2": self.r2[at],
            "r2_out": self.r2_out[at, 0],
            "r2_out_low": self.r2_out[at, 1],
            "r2_out_high": self.r2_out[at, 2],
            "r2_out_length": self.r2_length[at],
            "r2_out_with_length": self.r2_with_length[at],
            "gain_over_length": self.gain[at, 0],
            "gain_over_length_low": self.gain[at, 1],
            "gain_over_length_high": self.gain[at, 2],
        }


def fitted(cell: Problems, model: Model) -> Fitted:
    """Fit one protocol to every problem of a cell.

    Args:
        cell: Of one condition and length.
        model: The protocol.
    """
    places = tuple(place for place in range(len(PROBLEMS)) if not why_not(cell, place))
    if not places:
        layers, nothing = cell.features.shape[-1], np.zeros(0)
        triple = np.zeros((0, 3))
        return Fitted((), np.zeros((0, layers)), nothing, nothing, triple, nothing, nothing, triple)
    features, target = cell.features[list(places)], cell.values[list(places)]
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
    """Why the distances of a problem say nothing of its target; empty where they predict it.

    Args:
        cell: Of one condition and length.
        fits: Its fits.
        problem: Place in `PROBLEMS`.
    """
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


def lasso_rows(cell: Problems, fits: list[Fitted], *, pair: str) -> Rows:
    """A row for every protocol, position, target and layer.

    Args:
        cell: Of one condition and length.
        fits: In the order of `MODELS`.
        pair: Name of the pair of models.

    Returns:
        Columns of `lasso`.
    """
    rows: Rows = []
    for place, (position, name) in enumerate(PROBLEMS):
        for model, fit in zip(MODELS, fits, strict=True):
            why = predicts(cell, fit, place)
            weights = np.full(cell.features.shape[-1], np.nan)
            if place in fit.places:
                weights = fit.coefficient[fit.places.index(place)]
            rows += [
                {
                    **cell.facts(pair),
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
