"""Intervals of means and rates whose prompts come in clusters, and equivalence by interval."""

from collections.abc import Sequence
from math import hypot, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, stdtrit

from actshift.maths.resampling import cluster_mean_draws


def cluster_mean_interval(
    values: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Cluster-bootstrap interval of a mean over prompts, widened for few clusters.

    Percentiles of sum_c w_c S_c / sum_c w_c n_c over with-replacement counts w. The tail is
    Phi(-sqrt(C / (C - 1)) t_{C-1}): a plain percentile interval is too short by about
    sqrt((C - 1) / C) z / t.

    Args:
        values: one value a prompt, such as a difference of outcomes or a rate's 0/1.
        clusters: cluster of each prompt.
        draws: resamples.
        rng: seeded generator.
        level: coverage aimed at.

    Returns:
        (low, high); NaN with fewer than two clusters, whose spread is unknown. Equal values in all
        clusters give an interval of no width: use `clustered_wilson` for rates near 0 or 1.

    Source:
        Field and Welsh 2007 (cluster bootstrap); Hesterberg 2015, "What teachers should know
        about the bootstrap", expanded percentile interval.
    """
    means = cluster_mean_draws(np.asarray(values)[None, :], clusters, draws=draws, rng=rng)
    low, high = bootstrap_ends(means, clusters=len(set(clusters)), level=level)[0]
    return float(low), float(high)


def bootstrap_ends(
    means: Float[np.ndarray, "row draw"], *, clusters: int, level: float = 0.95
) -> Float[np.ndarray, "row end"]:
    """Percentile ends of resampled means, widened for few clusters as `cluster_mean_interval` says.

    Args:
        means: resampled means, or differences of such.
        clusters: how many were resampled; of two samples, the smaller number.
        level: coverage aimed at.

    Returns:
        Lower and upper end of each row; NaN with fewer than two clusters.
    """
    if clusters < 2:
        return np.full((len(means), 2), np.nan)
    tail = ndtr(sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 - level) / 2))
    return np.quantile(means, (tail, 1 - tail), axis=1).T


def finite_ends(
    draws: Float[np.ndarray, "row draw"], *, clusters: int, least: float = 0.9
) -> Float[np.ndarray, "row end"]:
    """`bootstrap_ends` over the draws in which a statistic exists.

    Args:
        draws: resampled statistics; NaN where a draw has none.
        clusters: how many were resampled.
        least: share of the draws, more than which must have one; 1 if all must.

    Returns:
        Lower and upper end of each row; NaN where too few draws have one.
    """
    ends = np.full((len(draws), 2), np.nan)
    finite = np.isfinite(draws)
    full = finite.all(axis=1)
    if full.any():
        ends[full] = bootstrap_ends(draws[full], clusters=clusters)
    for row in np.flatnonzero(~full & (finite.mean(axis=1) > least)):
        ends[row] = bootstrap_ends(draws[row, finite[row]][None], clusters=clusters)[0]
    return ends


def cluster_t_interval(
    values: Float[np.ndarray, " prompt"], clusters: Sequence[str], *, level: float = 0.95
) -> tuple[float, float]:
    """Student interval of a mean over prompts with the cluster-robust standard error.

    m -+ t_{C-1} sqrt(C/(C-1) sum_c (S_c - n_c m)^2) / n. Unlike bootstrap percentiles it reaches
    the far tails that a correction over many pairs asks for.

    Args:
        values: one value a prompt.
        clusters: cluster of each prompt.
        level: coverage aimed at.

    Returns:
        (low, high); NaN with fewer than two clusters.

    Source:
        Liang and Zeger 1986; C - 1 degrees of freedom as in Cameron and Miller 2015.
    """
    sums, sizes = cluster_sums(values, clusters)
    count, n = len(sums), float(sizes.sum())
    if count < 2:
        return float("nan"), float("nan")
    mean = float(sums.sum()) / n
    spread = float(np.square(sums - sizes * mean).sum()) * count / (count - 1)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * sqrt(spread) / n
    return mean - half, mean + half


def mean_t_interval(
    values: Float[np.ndarray, " unit"], *, level: float = 0.95
) -> tuple[float, float]:
    """Student interval of a mean over independent units, such as training seeds.

    m -+ t_{n-1} s / sqrt(n), s with n - 1.

    Args:
        values: one value a unit.
        level: coverage aimed at.

    Returns:
        (low, high); NaN with fewer than two values.

    Source:
        Student 1908.
    """
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    mean = float(np.mean(values))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(np.std(values, ddof=1)) / sqrt(n)
    return mean - half, mean + half


def design_effect(values: Float[np.ndarray, " prompt"], clusters: Sequence[str]) -> float:
    """How many times the clustered variance of a mean exceeds that of independent prompts.

    D = [C/(C-1) sum_c (S_c - n_c m)^2] / [n/(n-1) sum_i (y_i - m)^2]; 1 in expectation for
    independent prompts, exactly 1 when every prompt is its own cluster. Where all values are
    equal the ratio is 0/0 and the worst case sum_c n_c^2 / n (clusters of copies) is taken.

    Args:
        values: one value a prompt.
        clusters: cluster of each prompt.

    Returns:
        D, at least 0; n, the worst case, with a single cluster.

    Source:
        Kish 1965; Rao and Scott 1992 for its use on proportions.
    """
    sums, sizes = cluster_sums(values, clusters)
    n, count, mean = int(sizes.sum()), len(sums), float(np.mean(values))
    spread = float(np.square(np.asarray(values, dtype=np.float64) - mean).sum())
    if count < 2 or spread <= 1e-24 * max(mean * mean, 1.0) * n:
        return float(np.square(sizes).sum() / n)
    between = float(np.square(sums - sizes * mean).sum()) * count / (count - 1)
    return between / (spread * n / (n - 1))


def wilson_interval(rate: float, n: float | int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a rate; n need not be whole.

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n).

    Args:
        rate: observed share, 0 to 1.
        n: sample size, or effective size n / design effect.
        level: coverage aimed at.

    Returns:
        (low, high), within 0 and 1.

    Raises:
        ValueError: the rate lies outside 0 to 1, or n is not positive.

    Source:
        Wilson 1927, by statsmodels.
    """
    from statsmodels.stats.proportion import proportion_confint  # slow to load

    if not 0 <= rate <= 1 or not n > 0:
        raise ValueError(f"a rate of {rate} over n = {n} has no Wilson interval")
    ends: Any = proportion_confint(rate * n, n, alpha=1 - level, method="wilson")
    low, high = (float(end) for end in ends)
    # At 0 and 1 the end is exact; rounding must not carry it outside.
    low = 0.0 if rate == 0 else max(0.0, low)
    high = 1.0 if rate == 1 else min(1.0, high)
    return low, high


def clustered_wilson(
    outcomes: Float[np.ndarray, " prompt"], clusters: Sequence[str], *, level: float = 0.95
) -> tuple[float, float]:
    """Wilson interval at n / max(1, design effect).

    Args:
        outcomes: 0/1 a prompt.
        clusters: cluster of each prompt.
        level: coverage aimed at.

    Returns:
        (low, high). A design effect below 1 is not allowed to add prompts.

    Raises:
        ValueError: there is no prompt.
    """
    if len(outcomes) == 0:
        raise ValueError("no prompts to take a rate of")
    effect = max(1.0, design_effect(outcomes, clusters))
    return wilson_interval(float(np.mean(outcomes)), len(outcomes) / effect, level=level)


def discordant_interval(
    gap: Float[np.ndarray, " prompt"], clusters: Sequence[str], *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean difference of rates that stays open where nothing changed.

    u = mean max(gap, 0) and v = mean max(-gap, 0), the shares that rose and fell, have clustered
    Wilson intervals; low = u - v - hypot(u - u_low, v_high - v), high likewise. Where no prompt of
    C equal clusters changed this is -+ z^2 / (C + z^2); a bootstrap has no width there.

    Args:
        gap: difference of two outcomes in [0, 1], one a prompt.
        clusters: cluster of each prompt.
        level: coverage aimed at.

    Returns:
        (low, high), within -1 and 1.

    Raises:
        ValueError: a difference lies outside -1 to 1, or there is no prompt.

    Source:
        Zou and Donner 2008 (square-and-add of two intervals; Newcombe 1998 for rates).
    """
    rose, fell = np.maximum(gap, 0.0), np.maximum(-gap, 0.0)
    up_low, up_high = clustered_wilson(rose, clusters, level=level)
    down_low, down_high = clustered_wilson(fell, clusters, level=level)
    up, down = float(rose.mean()), float(fell.mean())
    low = up - down - hypot(up - up_low, down_high - down)
    high = up - down + hypot(up_high - up, down - down_low)
    return max(-1.0, low), min(1.0, high)


def within_margin(low: float, high: float, margin: float) -> bool:
    """Whether an interval lies inside (-margin, margin): support for "no effect".

    A large p value is not such support. NaN ends are never inside.

    Args:
        low: lower end.
        high: upper end.
        margin: largest difference that counts as none, above 0.

    Raises:
        ValueError: the margin is not positive.

    Source:
        Schuirmann 1987 (two one-sided tests, here by the interval of whatever level was given).
    """
    if not margin > 0:
        raise ValueError(f"an equivalence margin of {margin} is not positive")
    return -margin < low and high < margin


def cluster_sums(
    values: Float[np.ndarray, " prompt"], clusters: Sequence[str]
) -> tuple[Float[np.ndarray, " cluster"], Float[np.ndarray, " cluster"]]:
    """Sum and number of values of each cluster, clusters in the order of their names.

    Args:
        values: one value a prompt.
        clusters: cluster of each prompt.

    Returns:
        (sums, sizes).

    Raises:
        ValueError: the lengths differ.
    """
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values for {len(clusters)} clusters")
    _, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.bincount(codes, weights=np.asarray(values, dtype=np.float64))
    return sums, np.bincount(codes).astype(np.float64)
