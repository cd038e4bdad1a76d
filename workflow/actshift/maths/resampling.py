"""Index draws for bootstraps, half-samples, nested subsets and permutations.

Every function takes the generator as an argument and returns plain arrays, so that one draw can
serve all layers and matrices: differences between layers are then not resampling noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num


def bootstrap_counts(
    n: int, *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw prompt"]:
    """How often each of n prompts is drawn in a with-replacement sample of size n.

    About 37 % of the prompts are absent from a draw, so any statistic that grows with the number
    of distinct prompts, as ranks do, comes out too low.

    Args:
        n: Number of prompts.
        draws: Number of resamples.
        rng: Seeded generator.

    Returns:
        Counts `[draw, prompt]`; each row sums to n.
    """
    return rng.multinomial(n, np.full(n, 1.0 / n), size=draws).astype(np.int64)


def cluster_bootstrap_counts(
    clusters: Sequence[str], *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw prompt"]:
    """With-replacement counts that draw whole clusters: prompts of one cluster share a count.

    Args:
        clusters: Cluster of each prompt.
        draws: Number of resamples.
        rng: Seeded generator.

    Returns:
        Counts `[draw, prompt]`.
    """
    codes, total = _codes(clusters)
    return bootstrap_counts(total, draws=draws, rng=rng)[:, codes]


@dataclass(frozen=True, eq=False)
class ClusterResamples:
    """With-replacement resamples of whole clusters, shared by all that is measured on the prompts.

    Attributes:
        clusters: Cluster of each prompt.
        member: 1 where a prompt belongs to a cluster; clusters in the order of their names.
        counts: How often a resample draws a cluster.
    """

    clusters: tuple[str, ...]
    member: Float[np.ndarray, "prompt cluster"]
    counts: Num[np.ndarray, "draw cluster"]

    @property
    def sizes(self) -> Float[np.ndarray, " cluster"]:
        """Prompts of each cluster."""
        return self.member.sum(axis=0)

    def draws(self, values: Num[np.ndarray, "row prompt"]) -> Float[np.ndarray, "row draw"]:
        """Mean of each row on each resample: sum_c w_c S_c / sum_c w_c n_c.

        Args:
            values: One row a condition, one value a prompt.
        """
        sums = np.asarray(values, dtype=np.float64) @ self.member
        return (sums @ self.counts.T) / (self.counts @ self.sizes)


def draw_clusters(
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    dtype: type[np.float64] | type[np.int64] = np.float64,
) -> tuple[tuple[str, ...], Float[np.ndarray, "prompt cluster"], Num[np.ndarray, "draw cluster"]]:
    """Draw clusters with replacement.

    Args:
        clusters: Cluster of each prompt; there must be one.
        draws: Number of resamples.
        rng: Seeded generator.
        dtype: Of the counts. The last bit of a product of floats depends on it.

    Returns:
        The fields of a `ClusterResamples`.
    """
    codes, total = _codes(clusters)
    counts = bootstrap_counts(total, draws=draws, rng=rng).astype(dtype)
    return tuple(clusters), np.eye(total)[codes], counts


def cluster_mean_draws(
    values: Float[np.ndarray, "row prompt"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "row draw"]:
    """Cluster-bootstrap resamples of the means of many rows over the same prompts.

    One draw of counts serves all rows: differences between rows are not resampling noise.

    Args:
        values: One row a condition, one value a prompt.
        clusters: Cluster of each prompt.
        draws: Number of resamples.
        rng: Seeded generator.

    Returns:
        The mean of each row on each resample (`ClusterResamples.draws`).

    Raises:
        ValueError: The lengths differ, or there is no prompt.
    """
    if len(clusters) != values.shape[1] or not len(clusters):
        raise ValueError(f"{values.shape[1]} values for {len(clusters)} clusters")
    drawn = draw_clusters(clusters, draws=draws, rng=rng, dtype=np.int64)
    return ClusterResamples(*drawn).draws(values)


def half_samples(
    clusters: Sequence[str], *, draws: int, rng: np.random.Generator
) -> Bool[np.ndarray, "draw prompt"]:
    """Random halves of the clusters, without replacement: floor(C / 2) clusters a draw.

    A half-sample has no duplicates, so it estimates a rank *at its own size* without the
    downward bias of the bootstrap; and the spread of halves around their mean estimates the
    sampling spread at full size (delete-half jackknife, factor (n - m) / m = 1).

    Args:
        clusters: Cluster of each prompt; at least two distinct ones for a non-empty half.
        draws: Number of halves.
        rng: Seeded generator.

    Returns:
        Membership `[draw, prompt]`; all False when there is a single cluster.
    """
    codes, total = _codes(clusters)
    order = np.argsort(rng.random((draws, total)), axis=1)
    chosen = np.zeros((draws, total), dtype=bool)
    np.put_along_axis(chosen, order[:, : total // 2], True, axis=1)
    return chosen[:, codes]


def nested_orders(
    n: int, *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw prompt"]:
    """Random orders of n prompts; the first m of a row are a subset nested in the first m + 1.

    Args:
        n: Number of prompts.
        draws: Number of orders.
        rng: Seeded generator.

    Returns:
        Permutations `[draw, prompt]`.
    """
    return np.argsort(rng.random((draws, n)), axis=1)


def cluster_orders(
    clusters: Sequence[str], *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw prompt"]:
    """Random orders in which the prompts of a cluster stay together.

    The first m of a row are whole clusters but for the last one: a cluster subsample of exactly
    m prompts, for statistics that must be compared at equal n.

    Args:
        clusters: Cluster of each prompt.
        draws: Number of orders.
        rng: Seeded generator.

    Returns:
        Permutations `[draw, prompt]`.
    """
    codes, total = _codes(clusters)
    keys = rng.random((draws, total))[:, codes]
    # Equal keys within a cluster: the second sort key shuffles its prompts.
    return np.lexsort((rng.random(keys.shape), keys), axis=1)


def prefix_membership(
    orders: Int[np.ndarray, "draw prompt"], size: int
) -> Bool[np.ndarray, "draw prompt"]:
    """Membership of the first `size` prompts of each order."""
    chosen = np.zeros(orders.shape, dtype=bool)
    np.put_along_axis(chosen, orders[:, :size], True, axis=1)
    return chosen


def stability_range(
    values: Float[np.ndarray, " draw"], *, level: float = 0.95
) -> tuple[float, float]:
    """The observed values that enclose the middle `level` of the draws.

    No interpolation between draws: a range of integer ranks ends on integers. It is called a
    stability range because an integer functional has no confidence interval of the usual kind.

    Args:
        values: One value a draw; NaN draws are left out.
        level: Share of the draws inside.

    Returns:
        (low, high); NaN when no draw is finite.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if kept.size == 0:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low = np.quantile(kept, tail, method="lower")
    high = np.quantile(kept, 1.0 - tail, method="higher")
    return float(low), float(high)


def _codes(clusters: Sequence[str]) -> tuple[Int[np.ndarray, " prompt"], int]:
    names, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return codes, len(names)


def shifted_range(full: float, draws: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    """Stability range at full n: the spread of half-samples, moved to the full-sample value.

    Half-samples estimate the statistic at n/2, and their spread around their own middle equals
    the sampling spread at n (delete-half jackknife). So the spread is kept and the location is
    not. The middle is an observed draw, so a range of integer ranks ends on integers.
    """
    kept = draws[np.isfinite(draws)]
    if kept.size == 0:
        return float("nan"), float("nan")
    centre = float(np.quantile(kept, 0.5, method="lower"))
    low, high = stability_range(kept)
    return full + low - centre, full + high - centre
