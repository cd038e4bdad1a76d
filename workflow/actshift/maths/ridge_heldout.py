"""How well a ridge map predicts clusters it never saw, and the same under shuffled pairing.

Two rounds of folds over whole clusters: the outer one predicts, the inner one chooses the penalty
among the outer fold's training clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.intervals import bootstrap_ends, cluster_sums
from actshift.maths.resampling import bootstrap_counts, cluster_orders
from actshift.maths.ridge import PENALTIES, isometric
from actshift.maths.ridge_folds import Folded, Sums, squared_errors, sums_of

#: Numbers that the shuffled targets held at once may have.
_BLOCK = 1_000_000


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions for clusters that neither the map nor its penalty saw.

    Attributes:
        residual: Squared error of each row's prediction, summed over dimensions.
        total: The same of the training mean.
        penalties: Chosen in each outer fold.
    """

    residual: Float[np.ndarray, " row"]
    total: Float[np.ndarray, " row"]
    penalties: Float[np.ndarray, " fold"]

    @property
    def r2(self) -> float:
        """1 - sum of squared errors / sum of squares about the training mean, over all rows."""
        return float(1 - self.residual.sum() / self.total.sum())

    def interval(
        self, clusters: Sequence[str], *, draws: int, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Cluster-bootstrap interval of `r2`; maps are not refitted in a draw."""
        residual, _ = cluster_sums(self.residual, clusters)
        total, _ = cluster_sums(self.total, clusters)
        weights = bootstrap_counts(len(total), draws=draws, rng=rng)
        drawn = 1 - (weights @ residual) / (weights @ total)
        low, high = bootstrap_ends(drawn[None], clusters=len(total))[0]
        return float(low), float(high)


def held_out(source: Folded, target: Float[np.ndarray, "row d_target"]) -> HeldOut:
    """Predict every fold from the others, its penalty chosen inside the others."""
    wide = np.asarray(target, dtype=np.float64)
    residual, total = np.empty(len(wide)), np.empty(len(wide))
    inner = _inner_penalties(source, sums_of(source, isometric(wide)[:, None]))
    penalties = [float(PENALTIES[inner[fold][0]]) for fold in source.single]
    for (fold, fit), penalty in zip(source.single.items(), penalties, strict=True):
        test, train = fit.tests[fold], wide[fit.rows]
        shrunk = fit.source.shrinkage(np.array([penalty]))[0]
        rest = wide[test.rows] - train.mean(axis=0)
        guess = (test.coordinates * shrunk) @ (fit.source.left.T @ (train - train.mean(axis=0)))
        total[test.rows] = np.square(rest).sum(axis=1)
        residual[test.rows] = np.square(rest - guess).sum(axis=1)
    return HeldOut(residual, total, np.array(penalties))


def _inner_penalties(source: Folded, sums: Sums) -> dict[int, Int[np.ndarray, " target"]]:
    """Number of the penalty of each outer fold, chosen where that fold is in no fit and no test."""
    penalties: dict[int, np.ndarray] = {}
    for (one, other), fit in source.double.items():
        for outer, inner in ((one, other), (other, one)):
            errors, _ = squared_errors(fit, inner, sums)
            penalties[outer] = penalties[outer] + errors if outer in penalties else errors
    return {outer: np.argmin(errors, axis=1) for outer, errors in penalties.items()}


def _r2_of(source: Folded, sums: Sums) -> Float[np.ndarray, " target"]:
    """Held-out R^2 of many targets, from sums alone: that of `held_out`."""
    chosen = _inner_penalties(source, sums)
    residual, total = 0.0, 0.0
    for fold, fit in source.single.items():
        errors, rest = squared_errors(fit, fold, sums)
        residual += np.take_along_axis(errors, chosen[fold][:, None], axis=1)[:, 0]
        total += rest
    return np.asarray(1 - residual / total)


def shuffled_orders(
    clusters: Sequence[str], *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw row"]:
    """Pairings of rows with rows in which whole clusters move and their rows are shuffled.

    Source rows in the order of their clusters meet target rows whose clusters, and the rows inside
    them, are in random order. Rows of a cluster stay neighbours, as alike as they were, so the null
    has as few independent units as the data; but a row of one kind of prompt does not keep a
    partner of its kind, which a permutation of clusters alone would let the map learn. Source row i
    is paired with target row `order[i]`.
    """
    _, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    grouped = np.argsort(codes, kind="stable")
    moved = cluster_orders(clusters, draws=draws, rng=rng)
    orders = np.empty_like(moved)
    orders[:, grouped] = moved
    return orders


def shuffled_r2(
    source: Folded,
    targets: Float[np.ndarray, "row d_target"],
    orders: Int[np.ndarray, "draw row"],
) -> Float[np.ndarray, " draw"]:
    """Held-out R^2 of maps fitted on shuffled pairings, by the same code, penalty included.

    Targets are in their own order, orders of `shuffled_orders`.
    """
    narrow = isometric(targets)
    width = max(1, _BLOCK // narrow.size)
    parts = [
        _r2_of(source, sums_of(source, narrow[orders[start : start + width].T]))
        for start in range(0, len(orders), width)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
