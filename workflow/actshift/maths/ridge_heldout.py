"""How well a ridge map predicts clusters it never saw, and the same under shuffled pairing.

Two rounds of folds over whole clusters: the outer one predicts, the inner one chooses the penalty
among the outer fold's training clusters. An inner fit leaves out two folds, so each serves two
outer folds, and all depend on the source alone: one set of decompositions serves every target,
every penalty and every shuffled pairing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.intervals import bootstrap_ends
from actshift.maths.resampling import cluster_bootstrap_counts, cluster_orders
from actshift.maths.ridge import PENALTIES, Factored, factored

#: Numbers that the shuffled targets held at once may have.
_BLOCK = 1_000_000


@dataclass(frozen=True, eq=False)
class Training:
    """A fit that leaves some folds out, and what it needs to predict them.

    Attributes:
        rows: Which rows are fitted.
        source: Their decomposition.
        tests: Of every fold left out: its rows, and their coordinates.
    """

    rows: Bool[np.ndarray, " row"]
    source: Factored
    tests: dict[int, tuple[Bool[np.ndarray, " row"], Float[np.ndarray, "test component"]]]


@dataclass(frozen=True, eq=False)
class Folded:
    """Source rows with the fits of all folds.

    Attributes:
        fold: Fold of each row.
        whole: All rows, for the map itself.
        single: The fits that leave one fold out, by fold.
        double: The fits that leave two out, by (smaller, larger) fold.
    """

    fold: Int[np.ndarray, " row"]
    whole: Factored
    single: dict[int, Training]
    double: dict[tuple[int, int], Training]


def folded(rows: Float[np.ndarray, "row d_source"], fold: Int[np.ndarray, " row"]) -> Folded:
    """Decompose the source rows of every training set.

    Args:
        rows: States of the source model.
        fold: Fold of each row, 0 to K - 1; whole clusters (`maths.lasso.group_folds`).

    Raises:
        ValueError: Fewer than three folds: the inner round needs two beside the outer one.
    """
    names = [int(name) for name in np.unique(fold)]
    if len(names) < 3:
        raise ValueError(f"penalties inside folds need three folds or more, found {len(names)}")
    wide = np.asarray(rows, dtype=np.float64)

    def training(left_out: tuple[int, ...]) -> Training:
        kept = ~np.isin(fold, left_out)
        source = factored(wide[kept])
        tests = {one: (fold == one, source.coordinates(wide[fold == one])) for one in left_out}
        return Training(kept, source, tests)

    return Folded(
        fold=fold,
        whole=factored(wide),
        single={one: training((one,)) for one in names},
        double={pair: training(pair) for pair in combinations(names, 2)},
    )


def squared_errors(
    fit: Training,
    test: int,
    targets: Float[np.ndarray, "row target d_target"],
    penalties: Float[np.ndarray, " penalty"] = PENALTIES,
) -> Float[np.ndarray, "target penalty"]:
    """Squared error of one fold's predictions at every penalty, for many targets at once.

    With Z the fold's coordinates, R its targets about the training mean, C = U^T Xt and D the
    shrinkage, ||R - Z diag(D) C||^2 = ||R||^2 - 2 D.b + D^T (Z^T Z * C C^T) D, b = diag(Z^T R C^T).

    Args:
        fit: A fit that leaves the fold out.
        test: The fold.
        targets: All rows, targets in the middle.
        penalties: Tried penalties.
    """
    rows, coordinates = fit.tests[test]
    train, held = targets[fit.rows], targets[rows]
    mean = train.mean(axis=0)
    left = _over_rows(fit.source.left, train - mean)
    rest = held - mean
    across = _over_rows(coordinates, rest)
    shrunk = fit.source.shrinkage(penalties)
    linear = (across * left).sum(axis=2) @ shrunk.T
    second = (coordinates.T @ coordinates) * np.matmul(left, left.transpose(0, 2, 1))
    square = (np.matmul(shrunk, second) * shrunk).sum(axis=2)
    return np.square(rest).sum(axis=(0, 2))[:, None] - 2 * linear + square


def _over_rows(
    basis: Float[np.ndarray, "row component"], values: Float[np.ndarray, "row target d_target"]
) -> Float[np.ndarray, "target component d_target"]:
    """Basis^T values, for every target."""
    rows, targets, width = values.shape
    found = basis.T @ values.reshape(rows, targets * width)
    return found.reshape(-1, targets, width).transpose(1, 0, 2)


def chosen_penalties(
    source: Folded, targets: Float[np.ndarray, "row target d_target"]
) -> Float[np.ndarray, " target"]:
    """Penalty of the map itself: smallest squared error over folds of clusters.

    Args:
        source: Folded source rows.
        targets: Rows of one or more targets.
    """
    errors = sum(squared_errors(fit, fold, targets) for fold, fit in source.single.items())
    return PENALTIES[np.argmin(np.asarray(errors), axis=1)]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions for clusters that neither the map nor its penalty saw.

    Attributes:
        residual: Squared error of each row's prediction, summed over dimensions, `[target, row]`.
        total: The same of the training mean.
        penalties: Chosen in each outer fold, `[target, fold]`.
    """

    residual: Float[np.ndarray, "target row"]
    total: Float[np.ndarray, "target row"]
    penalties: Float[np.ndarray, "target fold"]

    @property
    def r2(self) -> Float[np.ndarray, " target"]:
        """1 - sum of squared errors / sum of squares about the training mean, over all rows."""
        return 1 - self.residual.sum(axis=1) / self.total.sum(axis=1)

    def interval(
        self, clusters: Sequence[str], *, draws: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "target end"]:
        """Cluster-bootstrap interval of `r2`; maps are not refitted in a draw."""
        weights = cluster_bootstrap_counts(clusters, draws=draws, rng=rng)
        drawn = 1 - (self.residual @ weights.T) / (self.total @ weights.T)
        return bootstrap_ends(drawn, clusters=len(set(clusters)))


def held_out(source: Folded, targets: Float[np.ndarray, "row target d_target"]) -> HeldOut:
    """Predict every fold from the others, its penalty chosen inside the others.

    Args:
        source: Folded source rows.
        targets: Rows of one or more targets, such as one target under many pairings.
    """
    rows, count, _ = targets.shape
    residual, total = np.empty((count, rows)), np.empty((count, rows))
    penalties = np.empty((count, len(source.single)))
    inner = _inner_errors(source, targets)
    for place, (fold, fit) in enumerate(source.single.items()):
        chosen = np.argmin(inner[fold], axis=1)
        penalties[:, place] = PENALTIES[chosen]
        at, coordinates = fit.tests[fold]
        train, mean = targets[fit.rows], targets[fit.rows].mean(axis=0)
        shrunk = fit.source.shrinkage(PENALTIES)[chosen]
        weights = shrunk[:, :, None] * _over_rows(fit.source.left, train - mean)
        rest = (targets[at] - mean).transpose(1, 0, 2)
        total[:, at] = np.square(rest).sum(axis=2)
        residual[:, at] = np.square(rest - np.matmul(coordinates, weights)).sum(axis=2)
    return HeldOut(residual, total, penalties)


def _inner_errors(
    source: Folded, targets: Float[np.ndarray, "row target d_target"]
) -> dict[int, Float[np.ndarray, "target penalty"]]:
    """Errors by outer fold, summed over the inner folds; a held-out fold is in none of its own."""
    found: dict[int, np.ndarray] = {}
    for (one, other), fit in source.double.items():
        for outer, inner in ((one, other), (other, one)):
            errors = squared_errors(fit, inner, targets)
            found[outer] = found[outer] + errors if outer in found else errors
    return found


def shuffled_orders(
    clusters: Sequence[str], *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw row"]:
    """Pairings of rows with rows in which whole clusters move and their rows are shuffled.

    Source rows in the order of their clusters meet target rows whose clusters, and the rows inside
    them, are in random order. Rows of a cluster stay neighbours, as alike as they were, so the null
    has as few independent units as the data; but a row of one kind of prompt does not keep a
    partner of its kind, which a permutation of clusters alone would let the map learn.

    Args:
        clusters: Cluster of each row.
        draws: How many.
        rng: Seeded generator.

    Returns:
        `[draw, row]`: source row i is paired with target row `order[i]`.
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

    Args:
        source: Folded source rows.
        targets: Target rows in their own order.
        orders: Of `shuffled_orders`.
    """
    narrow = isometric(targets)
    width = max(1, _BLOCK // narrow.size)
    parts = [
        held_out(source, narrow[orders[start : start + width].T]).r2
        for start in range(0, len(orders), width)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def isometric(targets: Float[np.ndarray, "row d_target"]) -> Float[np.ndarray, "row narrow"]:
    """Rows with the same inner products in no more dimensions than there are rows.

    All errors of a ridge fit are sums of squares over target dimensions, so they are the same.
    """
    wide = np.asarray(targets, dtype=np.float64)
    if wide.shape[1] <= wide.shape[0]:
        return wide
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    return left * values
