"""Linear maps between two activation spaces: centred ridge with many targets, and its error.

W(a) = (Xs^T Xs + a I)^-1 Xs^T Xt over centred rows. With the thin SVD Xs = U S V^T this is
V diag(s / (s^2 + a)) U^T Xt, so one decomposition serves every penalty; where there are fewer rows
than dimensions it is that of the dual form Xs^T (Xs Xs^T + a I)^-1 Xt.

Fits that leave folds of clusters out depend on the source alone: one set of decompositions serves
every target, every penalty and every shuffled pairing, from sums alone. Two rounds of folds over
whole clusters: the outer one predicts, the inner one chooses the penalty among the outer fold's
training clusters. A fit that leaves out two folds serves both as outer folds: the other one then
judges the penalty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.intervals import bootstrap_ends, cluster_sums
from actshift.maths.resampling import bootstrap_counts, cluster_orders

#: Penalties in units of trace(Xs^T Xs) / n, falling, so that of equals the larger one is taken.
#: Maps between zoo models choose about 1e-2, where the usual grid ends: this one shows no edge.
PENALTIES = np.logspace(6, -4, 21)
#: Share of a map's squared Frobenius norm that its stored factors keep, at least.
ENERGY = 0.9999
#: Numbers that the shuffled targets held at once may have.
_BLOCK = 1_000_000


@dataclass(frozen=True, eq=False)
class Factored:
    """Source rows, centred and decomposed: X - mean = left diag(values) right^T.

    Attributes:
        mean: Mean row, `[d_source]`.
        left: U, `[row, component]`.
        values: Singular values, falling.
        right: V, `[d_source, component]`.
        scale: trace(Xs^T Xs) / n, the mean squared norm of a centred row.
    """

    mean: Float[np.ndarray, " d_source"]
    left: Float[np.ndarray, "row component"]
    values: Float[np.ndarray, " component"]
    right: Float[np.ndarray, "d_source component"]
    scale: float

    def coordinates(
        self, rows: Float[np.ndarray, "other d_source"]
    ) -> Float[np.ndarray, "other component"]:
        """Other rows, centred by this mean, in the basis V."""
        return (rows - self.mean) @ self.right

    def shrinkage(
        self, penalties: Float[np.ndarray, " penalty"]
    ) -> Float[np.ndarray, "penalty component"]:
        """Factors s / (s^2 + a scale) of every singular value at every penalty a."""
        return self.values * self.inverse(penalties)

    def inverse(
        self, penalties: Float[np.ndarray, " penalty"]
    ) -> Float[np.ndarray, "penalty component"]:
        """Eigenvalues 1 / (s^2 + a scale) of (Xs^T Xs + a scale I)^-1 at every penalty a."""
        return 1 / (np.square(self.values) + penalties[:, None] * self.scale)


def factored(rows: Float[np.ndarray, "row d_source"]) -> Factored:
    """Centre source rows and decompose them once for all penalties.

    Args:
        rows: States of the source model, a row a prompt; any real dtype.

    Raises:
        ValueError: All rows are equal, so nothing can be mapped.
    """
    wide = np.asarray(rows, dtype=np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    scale = float(np.square(centred).sum() / len(centred))
    if not scale > 0:
        raise ValueError("all source rows are equal, so there is nothing to map from")
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    return Factored(mean, left, values, right.T, scale)


def ridge_map(
    source: Factored, targets: Float[np.ndarray, "row d_target"], penalty: float
) -> Float[np.ndarray, "d_source d_target"]:
    """W = (Xs^T Xs + a I)^-1 Xs^T Xt, both sides centred, without intercept.

    Args:
        source: Decomposed source rows.
        targets: Rows of the target model for the same prompts.
        penalty: a in units of trace(Xs^T Xs) / n.

    Returns:
        Map of row vectors, v_target = v_source W, float64.

    Source: Hoerl and Kennard 1970; centring as scikit-learn's Ridge with an intercept.
    """
    weights = source.shrinkage(np.array([penalty]))[0]
    centred = targets - np.mean(targets, axis=0, dtype=np.float64)
    return source.right @ (weights[:, None] * (source.left.T @ centred))


def row_weights(
    source: Factored, vectors: Float[np.ndarray, "vector d_source"], penalty: float
) -> Float[np.ndarray, "vector row"]:
    """Weights c with v W = c Xt for every choice of Xt: c = v V diag(s / (s^2 + a)) U^T.

    A map refitted on permuted pairs then costs one weighted sum of permuted rows.

    Args:
        source: Decomposed source rows.
        vectors: v, one a row.
        penalty: As in `ridge_map`.
    """
    weights = source.shrinkage(np.array([penalty]))[0]
    return (vectors @ source.right * weights) @ source.left.T


def refitted(
    weights: Float[np.ndarray, " row"],
    targets: Float[np.ndarray, "row d_target"],
    orders: Int[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw d_target"]:
    """Images v W_p of maps refitted with the target rows in other orders.

    Row i of the source is paired with row `order[i]` of the target; the penalty stays.

    Args:
        weights: Of `row_weights`.
        targets: Target rows in their own order.
        orders: Permutations.
    """
    centred = targets - np.mean(targets, axis=0, dtype=np.float64)
    spread = np.empty(orders.shape)
    # Moving the weights gives the same sum as moving the rows, and moves one number a row.
    np.put_along_axis(spread, orders, np.broadcast_to(weights, orders.shape), axis=1)
    return spread @ centred


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix as a product of two thin ones.

    Attributes:
        left: `[d_source, rank]`, float32.
        right: `[rank, d_target]`, float32.
        error: ||W - left right||_F / ||W||_F of the factors as stored.
    """

    left: Float[np.ndarray, "d_source rank"]
    right: Float[np.ndarray, "rank d_target"]
    error: float

    @property
    def rank(self) -> int:
        """Columns of the left factor."""
        return self.left.shape[1]


def low_rank(matrix: Float[np.ndarray, "d_source d_target"], *, energy: float = ENERGY) -> LowRank:
    """Fewest leading singular triples that keep a share of the squared Frobenius norm.

    Args:
        matrix: W.
        energy: Share to keep, in (0, 1]; 1 keeps the exact rank.

    Returns:
        Factors of rank at least 1; the square root of each singular value goes to either side.

    Source: Eckart and Young 1936.
    """
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = np.cumsum(np.square(values))
    exact = int(np.count_nonzero(values > values[0] * 1e-12))
    rank = int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-15))) + 1
    rank = max(1, min(rank, exact) if energy < 1 else exact)
    root = np.sqrt(values[:rank])
    a, b = (left[:, :rank] * root).astype(np.float32), (root[:, None] * right[:rank])
    b = b.astype(np.float32)
    size = float(np.linalg.norm(matrix))
    lost = float(np.linalg.norm(matrix - a.astype(np.float64) @ b.astype(np.float64)))
    return LowRank(a, b, lost / size if size > 0 else 0.0)


def isometric(targets: Float[np.ndarray, "row d_target"]) -> Float[np.ndarray, "row narrow"]:
    """Rows with the same inner products in no more dimensions than there are rows.

    All errors of a ridge fit are sums of squares over target dimensions, so they are the same.
    """
    wide = np.asarray(targets, dtype=np.float64)
    if wide.shape[1] <= wide.shape[0]:
        return wide
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    return left * values


@dataclass(frozen=True, eq=False)
class Test:
    """A fold that a fit leaves out.

    Attributes:
        rows: Which rows it holds.
        coordinates: Z, its rows about the training mean, in the fit's basis.
        total: Sum of its rows.
    """

    rows: Bool[np.ndarray, " row"]
    coordinates: Float[np.ndarray, "test component"]
    total: Float[np.ndarray, " d_source"]


@dataclass(frozen=True, eq=False)
class Training:
    """A fit that leaves some folds out, and what it needs to predict them.

    Attributes:
        rows: Which rows are fitted.
        source: Their decomposition.
        tests: The folds left out.
    """

    rows: Bool[np.ndarray, " row"]
    source: Factored
    tests: dict[int, Test]


@dataclass(frozen=True, eq=False)
class Folded:
    """Source rows with the fits of all folds.

    Attributes:
        rows: Source rows, centred, in no more dimensions than there are rows.
        fold: Fold of each row.
        whole: All rows as given, for the map itself.
        single: The fits that leave one fold out, by fold.
        double: The fits that leave two out, by (smaller, larger) fold.
    """

    rows: Float[np.ndarray, "row d_source"]
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
    whole = factored(rows)
    narrow = isometric(np.asarray(rows, dtype=np.float64) - whole.mean)

    def training(left_out: tuple[int, ...]) -> Training:
        kept = ~np.isin(fold, left_out)
        source = factored(narrow[kept])
        tests = {}
        for left in left_out:
            held = narrow[fold == left]
            tests[left] = Test(fold == left, source.coordinates(held), held.sum(axis=0))
        return Training(kept, source, tests)

    return Folded(
        rows=narrow,
        fold=fold,
        whole=whole,
        single={left: training((left,)) for left in names},
        double={pair: training(pair) for pair in combinations(names, 2)},
    )


@dataclass(frozen=True, eq=False)
class Sums:
    """All that squared errors need to know of targets, by fold.

    Attributes:
        count: Rows of each fold.
        cross: X^T Y, `[target, d_source, d_target]`.
        total: Sum of the target rows, `[target, d_target]`.
        square: Sum of their squares, `[target]`.
    """

    count: dict[int, int]
    cross: dict[int, Float[np.ndarray, "target d_source d_target"]]
    total: dict[int, Float[np.ndarray, "target d_target"]]
    square: dict[int, Float[np.ndarray, " target"]]


def sums_of(source: Folded, targets: Float[np.ndarray, "row target d_target"]) -> Sums:
    """Sums over the rows of every fold.

    Args:
        source: Folded source rows.
        targets: All rows, targets in the middle.
    """
    sums = Sums({}, {}, {}, {})
    _, count, width = targets.shape
    # Every permutation of rows has this mean; small sums lose fewer digits.
    mean = targets[:, 0].mean(axis=0)
    for fold in source.single:
        rows = targets[source.fold == fold] - mean
        flat = source.rows[source.fold == fold].T @ rows.reshape(len(rows), count * width)
        sums.count[fold] = len(rows)
        sums.cross[fold] = flat.reshape(-1, count, width).transpose(1, 0, 2)
        sums.total[fold] = rows.sum(axis=0)
        sums.square[fold] = np.einsum("rpt,rpt->p", rows, rows)
    return sums


def squared_errors(
    fit: Training, test: int, sums: Sums
) -> tuple[Float[np.ndarray, "target penalty"], Float[np.ndarray, " target"]]:
    """Squared error of one fold's predictions at every penalty, for many targets at once.

    With Z and R the fold's coordinates and targets about the training means, K = V^T Xs^T Xt and
    D the eigenvalues of the inverse, ||R - Z diag(D) K||^2 =
    ||R||^2 - 2 D.b + D^T (Z^T Z * K K^T) D, b = diag(Z^T R K^T).

    The fit leaves the fold out. Returns errors, and ||R||^2, that of the training mean.
    """
    kept = [fold for fold in sums.count if fold not in fit.tests]
    count, centre, held = sum(sums.count[fold] for fold in kept), fit.source.mean, fit.tests[test]
    mean = np.sum([sums.total[fold] for fold in kept], axis=0) / count
    cross = sum(sums.cross[fold] for fold in kept) - count * _outer(centre, mean)
    left = fit.source.right.T @ cross
    size, total = sums.count[test], sums.total[test]
    across = sums.cross[test] - _outer(held.total - size * centre, mean) - _outer(centre, total)
    inverse = fit.source.inverse(PENALTIES)
    linear = ((fit.source.right.T @ across) * left).sum(axis=2) @ inverse.T
    second = (held.coordinates.T @ held.coordinates) * (left @ left.transpose(0, 2, 1))
    square = ((inverse @ second) * inverse).sum(axis=2)
    rest = sums.square[test] - ((2 * total - size * mean) * mean).sum(axis=1)
    return rest[:, None] - 2 * linear + square, rest


def _outer(
    source: Float[np.ndarray, " d_source"], targets: Float[np.ndarray, "target d_target"]
) -> Float[np.ndarray, "target d_source d_target"]:
    return source[:, None] * targets[:, None, :]


def chosen_penalty(source: Folded, target: Float[np.ndarray, "row d_target"]) -> float:
    """Penalty of the map itself: smallest squared error over folds of clusters.

    Args:
        source: Folded source rows.
        target: Target rows.
    """
    sums = sums_of(source, isometric(target)[:, None])
    errors = sum(squared_errors(fit, fold, sums)[0] for fold, fit in source.single.items())
    return float(PENALTIES[np.argmin(errors)])


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
    """Predict every fold from the others, its penalty chosen inside the others.

    Args:
        source: Folded source rows.
        target: Target rows.
    """
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
    for pair, fit in source.double.items():
        for outer, inner in (pair, pair[::-1]):
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
        _r2_of(source, sums_of(source, narrow[orders[start : start + width].T]))
        for start in range(0, len(orders), width)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
