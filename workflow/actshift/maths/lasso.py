"""LassoCV and its elastic net on many subsets of the rows at once.

The published attribution fits `LassoCV` once. Here the same protocol also runs on hundreds of
half-samples and on permuted targets, and out of fold.

Objective, as scikit-learn's: ||y - X w||^2 / (2 n) + alpha (r ||w||_1 + (1 - r) ||w||^2 / 2), with
r = 1 for the LASSO.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.lasso_path import lasso_path

#: Penalties of the published protocol: log-spaced from 1e-4 to 1e1 (how many is not said; 100 is
#: the default of scikit-learn's LassoCV).
ALPHAS = np.logspace(1, -4, 100)


@dataclass(frozen=True, eq=False)
class Moments:
    """What a problem's fit needs to know of its rows, centred in the problem.

    Attributes:
        gram: X^T X / n, `[problem, layer, layer]`.
        cross: X^T y / n, `[problem, layer]`.
        variance: y^T y / n, `[problem]`.
        mean_x: `[problem, layer]`.
        mean_y: `[problem]`.
    """

    gram: Float[np.ndarray, "problem layer layer"]
    cross: Float[np.ndarray, "problem layer"]
    variance: Float[np.ndarray, " problem"]
    mean_x: Float[np.ndarray, "problem layer"]
    mean_y: Float[np.ndarray, " problem"]


def moments(
    features: Float[np.ndarray, "*problem pair layer"],
    target: Float[np.ndarray, "... pair"],
    members: Bool[np.ndarray, "_ pair"],
) -> Moments:
    """Centred second moments of every subset of the rows.

    Features and target are shared by all problems, or one each; no problem may be without rows.
    """
    centre, level = features.mean(axis=-2), target.mean(axis=-1)
    # Centred once: the moments of a subset are then small differences of small numbers.
    x, y = features - centre[..., None, :], target - level[..., None]
    share = members / members.sum(axis=1, keepdims=True)
    weighted = share * y
    width = x.shape[-1]
    products = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], width * width)
    mean_x, mean_y = _weighted(share, x), weighted.sum(axis=1)
    second = _weighted(share, products).reshape(-1, width, width)
    return Moments(
        gram=second - mean_x[:, :, None] * mean_x[:, None, :],
        cross=_weighted(weighted, x) - mean_x * mean_y[:, None],
        variance=(weighted * y).sum(axis=1) - mean_y**2,
        mean_x=mean_x + centre,
        mean_y=mean_y + level,
    )


def _weighted(
    weights: Float[np.ndarray, "problem pair"], values: Float[np.ndarray, "... pair column"]
) -> Float[np.ndarray, "problem column"]:
    """Weighted sums over pairs of values that all problems share, or of each one's own."""
    return weights @ values if values.ndim == 2 else np.matmul(weights[:, None], values)[:, 0]


@dataclass(frozen=True, eq=False)
class Fits:
    """Cross-validated fits, in units of z-scored features.

    Attributes:
        alpha: Chosen penalty, by problem.
        weights: `[problem, layer]`.
        scale: Standard deviation (divisor n) of each feature in the problem; 1 without spread.
        mean_x: Mean of each feature in the problem.
        mean_y: Mean of the target.
    """

    alpha: Float[np.ndarray, " problem"]
    weights: Float[np.ndarray, "problem layer"]
    scale: Float[np.ndarray, "problem layer"]
    mean_x: Float[np.ndarray, "problem layer"]
    mean_y: Float[np.ndarray, " problem"]

    def predict(
        self, features: Float[np.ndarray, "*problem pair layer"]
    ) -> Float[np.ndarray, "fit pair"]:
        """Each fit's prediction for all rows, shared by the fits or each one's own."""
        slope = self.weights / self.scale
        level = self.mean_y - (slope * self.mean_x).sum(axis=1)
        return np.matmul(features, slope[:, :, None])[..., 0] + level[:, None]


def cross_validated(
    features: Float[np.ndarray, "*problem pair layer"],
    target: Float[np.ndarray, "... pair"],
    folds: Int[np.ndarray, "_ pair"],
    *,
    alphas: Float[np.ndarray, " alpha"] = ALPHAS,
    l1_ratio: float = 1.0,
) -> Fits:
    """LassoCV of many subsets of the rows at once: z-score, choose the penalty by folds, refit.

    The penalty has the smallest mean over folds of the mean squared error, the larger one of
    equals. Features are z-scored on all rows of a problem, as published, so also on the held-out
    ones; the intercept is refitted in every fold. Features (`[pair, layer]`) and target (`[pair]`)
    are shared by all problems, or one each. Folds count from 0; -1 where the problem lacks the row.
    Penalties fall. `l1_ratio` is 1 for the LASSO, less for an elastic net.

    Raises:
        ValueError: A problem has fewer than two folds.

    Source:
        scikit-learn's LassoCV and ElasticNetCV, which the tests compare with.
    """
    members = folds >= 0
    if not ((folds == 1).any(axis=1) & (folds == 0).any(axis=1)).all():
        raise ValueError("every problem needs two folds or more")
    whole = moments(features, target, members)
    spread = np.sqrt(np.maximum(np.einsum("bii->bi", whole.gram), 0.0))
    floor = 1e-9 * np.maximum(np.abs(features).max(axis=-2), 1e-300)
    scale = np.where(spread > floor, spread, 1.0)
    keep = spread > floor
    errors = np.zeros((len(folds), len(alphas)))
    count = np.zeros(len(folds))
    for number in range(int(folds.max()) + 1):
        inside = folds == number
        has = inside.any(axis=1)
        stacked = _of_problems(features, has, shared=2), _of_problems(target, has, shared=1)
        train, test = (moments(*stacked, rows[has]) for rows in (members & ~inside, inside))
        path = _solve(_scaled(train, scale[has], keep[has]), alphas, l1_ratio)
        errors[has] += _squared_errors(path, train, test, scale[has])
        count += has
    best = (errors / count[:, None]).argmin(axis=1)
    path = _solve(_scaled(whole, scale, keep), alphas, l1_ratio)
    return Fits(
        alpha=alphas[best],
        weights=path[np.arange(len(best)), best],
        scale=scale,
        mean_x=whole.mean_x,
        mean_y=whole.mean_y,
    )


def _of_problems(
    values: Float[np.ndarray, "..."], has: Bool[np.ndarray, " problem"], *, shared: int
) -> Float[np.ndarray, "..."]:
    """Some problems' own values; all of them where the problems share them."""
    return values if values.ndim == shared else values[has]


def contiguous_folds(n: int, folds: int) -> Int[np.ndarray, " pair"]:
    """Folds of neighbouring rows, the first n mod k of them one row longer (KFold unshuffled)."""
    sizes = np.full(folds, n // folds) + (np.arange(folds) < n % folds)
    return np.repeat(np.arange(folds), sizes)


def group_folds(codes: Int[np.ndarray, " pair"], folds: int) -> Int[np.ndarray, " pair"]:
    """Folds of whole clusters: from the largest down, each to the lightest fold (GroupKFold).

    Codes are 0 to C - 1; a cluster may be empty. No more folds than clusters are used.
    """
    sizes = np.bincount(codes)
    fold_of, load = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds)
    for cluster in np.argsort(sizes, kind="stable")[::-1]:
        if sizes[cluster]:
            fold_of[cluster] = int(load.argmin())
            load[fold_of[cluster]] += sizes[cluster]
    return fold_of[codes]


def _scaled(
    sums: Moments,
    scale: Float[np.ndarray, "problem layer"],
    keep: Bool[np.ndarray, "problem layer"],
) -> tuple[Float[np.ndarray, "problem layer layer"], Float[np.ndarray, "problem layer"]]:
    gram = sums.gram / (scale[:, :, None] * scale[:, None, :])
    # A feature without spread in the whole problem is rounding noise in every fold.
    return (
        np.where(keep[:, :, None] & keep[:, None, :], gram, 0.0),
        np.where(keep, sums.cross / scale, 0.0),
    )


def _solve(
    scaled: tuple[Float[np.ndarray, "problem layer layer"], Float[np.ndarray, "problem layer"]],
    alphas: Float[np.ndarray, " alpha"],
    l1_ratio: float,
) -> Float[np.ndarray, "problem alpha layer"]:
    """An elastic net at one penalty is a LASSO whose Gram matrix has a ridge of that size."""
    gram, cross = scaled
    if l1_ratio == 1.0:
        return lasso_path(gram, cross, alphas[None])
    ridges = (1.0 - l1_ratio) * alphas[:, None, None] * np.eye(gram.shape[1])
    problems, width = cross.shape
    coefficients = lasso_path(
        (gram[:, None] + ridges).reshape(-1, width, width),
        np.repeat(cross, len(alphas), axis=0),
        np.tile(l1_ratio * alphas, problems)[:, None],
    )
    return coefficients.reshape(problems, len(alphas), width)


def _squared_errors(
    path: Float[np.ndarray, "problem alpha layer"],
    train: Moments,
    test: Moments,
    scale: Float[np.ndarray, "problem layer"],
) -> Float[np.ndarray, "problem alpha"]:
    """Mean squared error on the test rows, from moments about the training means."""
    off_x, off_y = test.mean_x - train.mean_x, test.mean_y - train.mean_y
    second = test.gram + off_x[:, :, None] * off_x[:, None, :]
    slope = path / scale[:, None, :]
    return (
        (test.variance + off_y**2)[:, None]
        - 2.0 * np.einsum("bap,bp->ba", slope, test.cross + off_x * off_y[:, None])
        + np.einsum("bap,bap->ba", np.matmul(slope, second), slope)
    )
