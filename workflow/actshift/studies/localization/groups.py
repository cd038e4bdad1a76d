"""How pairs are grouped: folds of whole clusters, and the pair that stands in for another."""

import random
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def cluster_folds(
    conditions: Sequence[str], clusters: Sequence[str], *, folds: int, seed: int
) -> Int[np.ndarray, " pair"]:
    """Fold of each pair: the clusters of a condition are dealt out in turn, in a drawn order.

    Args:
        conditions: Of each pair.
        clusters: Of each pair; a cluster lies in one fold, whatever its conditions.
        folds: Most folds.
        seed: Of the order.

    Returns:
        Numbers from 0; as many folds as clusters where those are fewer.
    """
    fold_of: dict[str, int] = {}
    for condition in sorted(set(conditions)):
        own = {
            cluster for one, cluster in zip(conditions, clusters, strict=True) if one == condition
        }
        fresh = sorted(own - fold_of.keys())
        random.Random(f"localization folds {condition} {seed}").shuffle(fresh)
        start = len(fold_of)
        fold_of |= {cluster: (start + number) % folds for number, cluster in enumerate(fresh)}
    return np.array([fold_of[cluster] for cluster in clusters], dtype=np.int64)


def partners(
    conditions: Sequence[str], clusters: Sequence[str], *, other: bool, seed: int
) -> list[int] | None:
    """For each pair another one, drawn from a different cluster.

    Args:
        conditions: Of each pair.
        clusters: Of each pair.
        other: Whether the partner is of another condition (the null) or of the same one
            (genericity).
        seed: Of the draw.

    Returns:
        Places of the partners; None where a pair has none, such as with one condition alone.
    """
    rng = random.Random(f"localization partners {other} {seed}")
    found = []
    for condition, cluster in zip(conditions, clusters, strict=True):
        fitting = [
            place
            for place, (one, group) in enumerate(zip(conditions, clusters, strict=True))
            if (one != condition) == other and group != cluster
        ]
        if not fitting:
            return None
        found.append(rng.choice(fitting))
    return found
