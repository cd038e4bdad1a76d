"""Linear maps between two activation spaces: centred ridge with many targets, and its storage.

W(a) = (Xs^T Xs + a I)^-1 Xs^T Xt over centred rows. With the thin SVD Xs = U S V^T this is
V diag(s / (s^2 + a)) U^T Xt, so one decomposition serves every penalty; where there are fewer rows
than dimensions it is that of the dual form Xs^T (Xs Xs^T + a I)^-1 Xt.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

#: Penalties in units of trace(Xs^T Xs) / n, falling, so that of equals the larger one is taken.
#: Maps between zoo models choose about 1e-2, where the usual grid ends: this one shows no edge.
PENALTIES = np.logspace(6, -4, 21)
#: Share of a map's squared Frobenius norm that its stored factors keep, at least.
ENERGY = 0.9999


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

    a is the penalty in units of trace(Xs^T Xs) / n. The map is of row vectors,
    v_target = v_source W, float64.

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
    """
    weights = source.shrinkage(np.array([penalty]))[0]
    return (vectors @ source.right * weights) @ source.left.T


def refitted(
    weights: Float[np.ndarray, " row"],
    targets: Float[np.ndarray, "row d_target"],
    orders: Int[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw d_target"]:
    """Images v W_p of maps refitted with the target rows in other orders.

    Row i of the source is paired with row `order[i]` of the target; the penalty stays. Weights are
    of `row_weights`; targets are in their own order.
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

    An `energy` of 1 keeps the exact rank. The rank is at least 1; the square root of each singular
    value goes to either side.

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
