"""How often the LASSO takes a feature on halves of the clusters, and on permuted targets."""

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.lasso import cross_validated

#: Halves times features fitted at once: enough for long loops, few enough for the cache.
_AT_ONCE = 8_000


def selection_frequency(
    features: Float[np.ndarray, "pair layer"],
    targets: Float[np.ndarray, "target pair"],
    folds: Int[np.ndarray, "half pair"],
) -> Float[np.ndarray, "target layer"]:
    """Share of half-samples in which LassoCV gives a feature a coefficient.

    Every target is fitted on every half. Folds are of the penalty inside each half; -1 outside it.

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
    """
    rows = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    groups = _exchangeable([len(own) for own in rows])
    permuted = np.empty((draws, len(target)))
    for drawn in permuted:
        for group in groups:
            for place, source in zip(group, rng.permutation(group), strict=True):
                own, taken = target[rows[place]], target[rows[source]]
                if len(own) != len(taken):
                    taken = own - own.mean() + taken.mean()
                drawn[rows[place]] = rng.permutation(taken)
    return permuted


def _exchangeable(sizes: list[int]) -> list[list[int]]:
    """Clusters of one size by size, and together those whose size no other has."""
    by_size: dict[int, list[int]] = {}
    for cluster, size in enumerate(sizes):
        by_size.setdefault(size, []).append(cluster)
    odd = [own[0] for own in by_size.values() if len(own) == 1]
    groups = {size: own for size, own in by_size.items() if len(own) > 1}
    if len(odd) == 1 and groups:
        nearest = min(groups, key=lambda size: abs(size - sizes[odd[0]]))
        groups[nearest] = groups[nearest] + odd
        odd = []
    return [*groups.values(), *([odd] if odd else [])]
