"""Tests of paired rates on clustered prompts, and Holm's correction.

Prompts that share a cluster (a noun, a source item) are not independent, so the
test here moves whole clusters. The one that assumes independent prompts stands beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.intervals import (
    cluster_mean_interval,
    cluster_sums,
    design_effect,
    discordant_interval,
)

#: Up to this many clusters with a non-zero difference all 2^C sign patterns are tried.
EXACT_CLUSTERS = 16
#: Sign patterns held in memory at once.
_CHUNK = 1000
#: Sums closer than this share of the largest possible sum count as tied.
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class SignFlip:
    """A cluster sign-flip test.

    Attributes:
        difference: mean over prompts of b - a.
        p_two_sided: P(|T*| >= |T|).
        p_greater: P(T* >= T), small when b lies above a.
        p_less: P(T* <= T), small when b lies below a.
        clusters: clusters whose summed difference is not zero.
        exact: whether all sign patterns were tried.
    """

    difference: float
    p_two_sided: float
    p_greater: float
    p_less: float
    clusters: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Paired:
    """One paired comparison b - a with everything a table row needs.

    Attributes:
        n: prompts.
        clusters: distinct clusters.
        rate_a: mean of a.
        rate_b: mean of b.
        difference: rate_b - rate_a.
        low: lower end of the interval of the difference, the lower of two: a cluster bootstrap's
            and `discordant_interval`'s, which has a width where nothing changed.
        high: upper end, the higher of the two.
        design_effect: of the difference; see `design_effect`.
        sign_flip: the cluster sign-flip test.
        p_mcnemar: exact McNemar, which assumes independent prompts; NaN unless outcomes are 0/1.
    """

    n: int
    clusters: int
    rate_a: float
    rate_b: float
    difference: float
    low: float
    high: float
    design_effect: float
    sign_flip: SignFlip
    p_mcnemar: float


def sign_flip_test(
    a: Float[np.ndarray, " prompt"],
    b: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
) -> SignFlip:
    """Test whether b - a is symmetric about 0, flipping the sign of whole clusters.

    T = sum over clusters c of S_c, with S_c the summed difference of the cluster's prompts; under
    the null each S_c is as likely as -S_c. All 2^C patterns up to `EXACT_CLUSTERS` clusters with
    S_c != 0 (the others change nothing), else p = (b + 1) / (m + 1) over m random patterns.

    Args:
        a: outcome of each prompt in one condition, such as refused 0/1.
        b: outcome of the same prompts in the other.
        clusters: cluster of each prompt.
        draws: random patterns m, where not all are tried.
        rng: seeded generator; not used by the exact test.

    Returns:
        Difference and p values. Without any non-zero cluster every p is 1.

    Raises:
        ValueError: an outcome is not finite, or there is no prompt.

    Source:
        Winkler et al. 2014 (NeuroImage 92), exchangeability blocks with sign flips; Phipson and
        Smyth 2010 for (b + 1) / (m + 1).
    """
    gap = _differences(a, b)
    sums = cluster_sums(gap, clusters)[0]
    sums = sums[sums != 0]
    exact = len(sums) <= EXACT_CLUSTERS
    total, tie = sums.sum(), _TIE * np.abs(sums).sum()
    nulls = [_all_patterns(sums)] if exact else _random_patterns(sums, draws, rng)
    two = greater = less = 0
    for null in nulls:
        two += int((np.abs(null) >= abs(total) - tie).sum())
        greater += int((null >= total - tie).sum())
        less += int((null <= total + tie).sum())
    # The observed pattern is one of all, and is added to a random sample.
    added, patterns = (0, 2 ** len(sums)) if exact else (1, draws + 1)
    p = [(count + added) / patterns for count in (two, greater, less)]
    return SignFlip(float(gap.mean()), *p, clusters=len(sums), exact=exact)


def mcnemar_exact(a: Float[np.ndarray, " prompt"], b: Float[np.ndarray, " prompt"]) -> float:
    """Two-sided exact McNemar test, which assumes independent prompts.

    p = P(X as or more extreme), X ~ Binomial(n01 + n10, 1/2); 1 without discordant prompts.

    Args:
        a: 0/1 outcomes.
        b: 0/1 outcomes of the same prompts.

    Returns:
        p; NaN when an outcome is neither 0 nor 1.

    Raises:
        ValueError: an outcome is not finite, or there is no prompt.

    Source:
        McNemar 1947; the exact form by scipy.stats.binomtest.
    """
    gap = _differences(a, b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        return float("nan")
    up, down = int((gap > 0).sum()), int((gap < 0).sum())
    from scipy.stats import binomtest  # slow to load

    return float(binomtest(up, up + down, 0.5).pvalue) if up + down else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given.

    Adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), m = number of p values.

    Args:
        p_values: raw p values; NaN (no test was made) stays NaN and is not counted.

    Returns:
        Adjusted values, at most 1.

    Source:
        Holm 1979. Not by statsmodels' `multipletests`, its equal in the tests: that one collects
        garbage at every call (0.1 s in a process of this size), and one table corrects 22 curves.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(raw), np.nan)
    tested = np.flatnonzero(~np.isnan(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1) * raw[order]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def compare_paired(
    a: Float[np.ndarray, " prompt"],
    b: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
) -> Paired:
    """Difference b - a of paired outcomes with its interval, tests and design effect.

    Outcomes of the same prompts lie within 0 and 1. `draws` are resamples of the interval, and of
    the test where it is not exact.

    Raises:
        ValueError: an outcome is not finite or not within 0 and 1, or there is no prompt.
    """
    gap = _differences(a, b)
    test = sign_flip_test(a, b, clusters, draws=draws, rng=rng)
    low, high = cluster_mean_interval(gap, clusters, draws=draws, rng=rng)
    outer_low, outer_high = discordant_interval(gap, clusters)
    return Paired(
        n=len(gap),
        clusters=len(set(clusters)),
        rate_a=float(np.mean(a)),
        rate_b=float(np.mean(b)),
        difference=test.difference,
        low=float(np.fmin(low, outer_low)),
        high=float(np.fmax(high, outer_high)),
        design_effect=design_effect(gap, clusters),
        sign_flip=test,
        p_mcnemar=mcnemar_exact(a, b),
    )


def _differences(
    a: Float[np.ndarray, " prompt"], b: Float[np.ndarray, " prompt"]
) -> Float[np.ndarray, " prompt"]:
    gap = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if len(gap) == 0 or not np.isfinite(gap).all():
        raise ValueError("paired outcomes must be finite, and there must be some")
    return gap


def _all_patterns(sums: Float[np.ndarray, " cluster"]) -> Float[np.ndarray, " pattern"]:
    """Signed sums of all 2^C sign patterns."""
    totals = np.zeros(1)
    for sum_of_cluster in sums:
        totals = np.concatenate([totals + sum_of_cluster, totals - sum_of_cluster])
    return totals


def _random_patterns(
    sums: Float[np.ndarray, " cluster"], draws: int, rng: np.random.Generator
) -> list[Float[np.ndarray, " pattern"]]:
    """Signed sums of random sign patterns, in chunks."""
    sizes = [min(_CHUNK, draws - start) for start in range(0, draws, _CHUNK)]
    return [(2.0 * rng.integers(0, 2, (size, len(sums))) - 1.0) @ sums for size in sizes]
