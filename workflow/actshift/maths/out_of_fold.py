"""LASSO fits for rows that they never saw, on halves of the clusters, and on permuted targets."""

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from actshift.maths.intervals import finite_ends
from actshift.maths.lasso import cross_validated

#: A column that covariates leave less than this share of its size is theirs up to rounding.
_SPANNED = 1e-9
#: Share of the target's spread that is rounding.
_ROUNDING = 1e-12
#: Halves times features fitted at once: enough for long loops, few enough for the cache.
_AT_ONCE = 8_000


def out_of_fold(
    features: Float[np.ndarray, "problem pair layer"],
    target: Float[np.ndarray, "problem pair"],
    outer: Int[np.ndarray, " pair"],
    inner: Int[np.ndarray, "fold pair"],
    *,
    covariates: Float[np.ndarray, "pair covariate"] | None = None,
    l1_ratio: float = 1.0,
) -> Float[np.ndarray, "problem pair"]:
    """LassoCV predictions for rows that neither the fit nor its penalty saw.

    Covariates are not penalised: target and features are replaced by their residuals about the
    covariates' least-squares lines of the training rows, which gives the same minimum
    (Frisch-Waugh-Lovell), and the target's line is added to the prediction.

    Args:
        features: One column a layer, of each problem.
        target: One value a row, of each problem.
        outer: Fold that predicts each row.
        inner: Folds of the penalty inside the training rows of each outer fold; -1 outside them.
        covariates: Columns beside the features.
        l1_ratio: 1 for the LASSO, less for an elastic net.
    """
    folds, (problems, pairs, layers) = len(inner), features.shape
    x = np.repeat(features[:, None], folds, axis=1)
    y = np.repeat(target[:, None], folds, axis=1)
    level = np.zeros_like(y)
    if covariates is not None:
        level = training_lines(covariates, target, inner >= 0)
        columns = np.moveaxis(features, 2, 1).reshape(-1, pairs)
        lines = training_lines(covariates, columns, inner >= 0)
        lines = np.moveaxis(lines.reshape(problems, layers, folds, pairs), 1, 3)
        y, left = y - level, x - lines
        size = np.abs(features).max(axis=1)[:, None, None]
        x = np.where(np.abs(left).max(axis=2, keepdims=True) > _SPANNED * size, left, 0.0)
    x = x.reshape(-1, pairs, layers)
    fits = cross_validated(
        x, y.reshape(-1, pairs), np.tile(inner, (problems, 1)), l1_ratio=l1_ratio
    )
    predicted = fits.predict(x).reshape(problems, folds, pairs) + level
    return predicted[:, outer, np.arange(pairs)]


def training_lines(
    covariates: Float[np.ndarray, "pair covariate"],
    values: Float[np.ndarray, "column pair"],
    training: Bool[np.ndarray, "fold pair"],
) -> Float[np.ndarray, "column fold pair"]:
    """Least-squares lines fitted on each fold's training rows, read at every row.

    Args:
        covariates: Predictors beside a constant; z-scored on the training rows. Of collinear
            ones the line of least norm is taken; one without spread there is left out.
        values: What is predicted.
        training: Rows that each fold is fitted on.
    """
    predicted = np.empty((len(values), *training.shape))
    for fold, rows in enumerate(training):
        mean, spread = covariates[rows].mean(axis=0), covariates[rows].std(axis=0)
        has = spread > _SPANNED * np.maximum(np.abs(covariates[rows]).max(axis=0), 1e-300)
        scaled = np.where(has, covariates - mean, 0.0) / np.where(has, spread, 1.0)
        level = values[:, rows].mean(axis=1)
        slope = np.linalg.lstsq(scaled[rows], (values[:, rows] - level[:, None]).T, rcond=1e-9)[0]
        predicted[:, fold] = level[:, None] + (scaled @ slope).T
    return predicted


def training_means(
    target: Float[np.ndarray, "problem pair"],
    outer: Int[np.ndarray, " pair"],
    training: Bool[np.ndarray, "fold pair"],
) -> Float[np.ndarray, "problem pair"]:
    """Mean of the target over the training rows of the fold that predicts each row."""
    share = training / training.sum(axis=1, keepdims=True)
    return (target @ share.T)[:, outer]


def gain_out(
    target: Float[np.ndarray, "problem pair"],
    before: Float[np.ndarray, "problem pair"],
    after: Float[np.ndarray, "problem pair"],
    mean: Float[np.ndarray, "problem pair"],
    weights: Real[np.ndarray, "draw pair"],
    *,
    clusters: int,
) -> Float[np.ndarray, "problem 3"]:
    """What one prediction explains beyond another, with its cluster-bootstrap interval.

    (sum (y - before)^2 - sum (y - after)^2) / sum (y - mean)^2 over rows that no fit saw. With
    `before` the training mean this is R^2 out of fold: 0 for a fit without support, below 0 for
    one worse than the mean. Predictions are not refitted in a draw.

    Args:
        target: y.
        before: Prediction to be beaten.
        after: Prediction.
        mean: Mean of the training rows of each row's fold.
        weights: Counts of `cluster_bootstrap_counts`, shared by the problems.
        clusters: How many are resampled.

    Returns:
        (value, low, high) of each problem; NaN where the target has no spread.
    """
    total = np.square(target - mean)
    whole = total.sum(axis=1)
    spread = whole > _SPANNED**2 * np.square(target).sum(axis=1)
    better = np.square(target - before) - np.square(target - after)
    # Two fits without support differ by rounding, which is no gain.
    better = np.where(np.abs(better) > _ROUNDING * whole[:, None], better, 0.0)
    # A draw whose rows all sit at the mean has nothing to explain.
    drawn = total @ weights.T
    drawn = np.where(drawn > _ROUNDING * whole[:, None], drawn, np.nan)
    value = better.sum(axis=1) / np.where(spread, whole, np.nan)
    ends = finite_ends(better @ weights.T / drawn, clusters=clusters)
    return np.where(spread[:, None], np.column_stack([value, ends]), np.nan)


def selection_frequency(
    features: Float[np.ndarray, "pair layer"],
    targets: Float[np.ndarray, "target pair"],
    folds: Int[np.ndarray, "half pair"],
) -> Float[np.ndarray, "target layer"]:
    """Share of half-samples in which LassoCV gives a feature a coefficient.

    Args:
        features: One column a layer.
        targets: Each is fitted on every half.
        folds: Folds of the penalty inside each half; -1 outside it.

    Source:
        Meinshausen and Buehlmann 2010, stability selection, with the penalty chosen in each half.
    """
    halves, layers = len(folds), features.shape[1]
    step = max(1, _AT_ONCE // (halves * layers))
    frequency = np.empty((len(targets), layers))
    for start in range(0, len(targets), step):
        bulk = targets[start : start + step]
        fits = cross_validated(
            features, np.repeat(bulk, halves, axis=0), np.tile(folds, (len(bulk), 1))
        )
        chosen = (fits.weights != 0).reshape(len(bulk), halves, layers)
        frequency[start : start + step] = chosen.mean(axis=1)
    return frequency


def permuted_target(
    target: Float[np.ndarray, " pair"],
    codes: Int[np.ndarray, " pair"],
    *,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw pair"]:
    """The target dealt anew to the clusters, the values of a cluster staying together.

    A cluster takes all values of another one of its size. Sizes that one cluster alone has form
    a group of their own (with the nearest size where it is a single cluster), in which a cluster
    takes the mean of another and keeps its values about its own mean. Inside a cluster the order
    of values is drawn too.

    Args:
        target: One value a pair.
        codes: Cluster of each pair.
        draws: Permutations.
        rng: Seeded generator.
    """
    rows = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    groups = _exchangeable([len(cluster) for cluster in rows])
    permuted = np.empty((draws, len(target)))
    for drawn in permuted:
        for group in groups:
            for place, source in zip(group, rng.permutation(group), strict=True):
                values, taken = target[rows[place]], target[rows[source]]
                if len(values) != len(taken):
                    taken = values - values.mean() + taken.mean()
                drawn[rows[place]] = rng.permutation(taken)
    return permuted


def _exchangeable(sizes: list[int]) -> list[list[int]]:
    """Clusters of one size by size, and together those whose size no other has."""
    by_size: dict[int, list[int]] = {}
    for cluster, size in enumerate(sizes):
        by_size.setdefault(size, []).append(cluster)
    odd = [members[0] for members in by_size.values() if len(members) == 1]
    groups = {size: members for size, members in by_size.items() if len(members) > 1}
    if len(odd) == 1 and groups:
        nearest = min(groups, key=lambda size: abs(size - sizes[odd[0]]))
        groups[nearest] = groups[nearest] + odd
        odd = []
    return [*groups.values(), *([odd] if odd else [])]
