"""Is variance order causal order? Tests that later directions matter more than earlier ones.

A rank correlation over ten directions cannot answer this: when the first direction dominates and
the rest are inert, it is spread widely around 0. So single pairs are tested, corrected by Holm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from actshift.maths.intervals import cluster_t_interval
from actshift.maths.paired import holm, sign_flip_test
from actshift.maths.resampling import cluster_bootstrap_counts
from actshift.maths.spectrum import spectrum

#: A direction whose bootstrap |cos| with itself lies below is not a definite direction.
STABLE_COSINE = 0.9
#: Smallest difference of effects that counts, as a share (5 points).
MARGIN = 0.05
#: Level of the corrected tests and intervals.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Exceedance:
    """Whether a later row exceeds an earlier one.

    Attributes:
        earlier: index of the earlier row (i).
        later: index of the later row (j).
        difference: mean over prompts of row j minus row i.
        low: lower end of the cluster interval at this pair's step of Holm's procedure.
        high: upper end at the level of the first step (Bonferroni), to say that no pair differs.
        p: one-sided cluster sign-flip p, uncorrected.
        p_holm: the same after Holm over all tested pairs.
        exceeds: difference above the margin, low above 0 and p_holm at most the level.
    """

    earlier: int
    later: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    exceeds: bool


def inversion_test(
    effects: Float[np.ndarray, "direction prompt"],
    stable: Bool[np.ndarray, " direction"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    margin: float = MARGIN,
) -> list[Exceedance]:
    """Test for every i < j of stable directions whether effect_j exceeds effect_i.

    Variance order is not causal order if any pair exceeds. Unstable directions are left out: where
    singular values are close, "direction i" is an arbitrary choice within their span. Effects are
    the change of the outcome when direction i alone is ablated, larger = more effect; directions in
    order of variance. `stable` are definite directions, such as those of `self_cosine` from
    `STABLE_COSINE` on. `draws` are random sign patterns where not all are tried: p cannot fall
    below 1 / (draws + 1). `margin` is the smallest difference that counts.

    Raises:
        ValueError: an effect is not finite.

    Source:
        Holm 1979 over the cluster sign-flip tests of `sign_flip_test`.
    """
    kept = np.flatnonzero(stable)
    return _exceedances(effects, kept, clusters, draws=draws, rng=rng, margin=margin)


def monotonicity_test(
    rates: Float[np.ndarray, "step prompt"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    margin: float = 0.0,
) -> list[Exceedance]:
    """Test a curve that should fall: does any later step lie above an earlier one?

    Null for each pair: equal rates. The curve is non-monotone if any pair exceeds. Rates are
    outcomes at each step, such as refused 0/1 after ablating the first k directions, k rising.
    `margin` is the smallest rise that counts; the rest is as in `inversion_test`.

    Raises:
        ValueError: an outcome is not finite.
    """
    steps = np.arange(len(rates))
    return _exceedances(rates, steps, clusters, draws=draws, rng=rng, margin=margin)


def order_tau(effects: Float[np.ndarray, "direction prompt"]) -> float:
    """Kendall's tau-b between variance order and mean effect: 1 when effects fall with the index.

    Shown and never tested: over ten directions it is compatible with almost anything.

    Args:
        effects: as in `inversion_test`.

    Returns:
        tau in [-1, 1]; NaN with fewer than two directions or equal effects.

    Source:
        Kendall 1945; scipy.stats.kendalltau.
    """
    from scipy.stats import kendalltau  # slow to load

    means = effects.mean(axis=1)
    if len(means) < 2 or np.ptp(means) == 0:
        return float("nan")
    return float(np.asarray(kendalltau(-np.arange(len(means)), means))[0])


def self_cosine(
    shift: Float[np.ndarray, "prompt d_model"],
    clusters: Sequence[str],
    *,
    k: int,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " direction"]:
    """How well a direction is defined: median |cos(u_i, u_i of a cluster-bootstrap resample)|.

    A resample weights prompt p by sqrt(count_p), so that its Gram matrix is that of the drawn rows.

    Args:
        shift: shift matrix, a row a prompt.
        clusters: cluster of each prompt.
        k: leading directions looked at; at most min(prompt, d_model).
        draws: resamples.
        rng: seeded generator.

    Returns:
        A value a direction in [0, 1]; about sqrt(2 / (pi d)) for a direction of pure noise. A
        resample of too low a rank to have direction i counts as 0.

    Source:
        Bootstrap of principal axes as in Jackson 1993; the measure is this project's own.
    """
    directions = spectrum(shift, k=k).left
    cosines = np.zeros((draws, k))
    for draw, counts in enumerate(cluster_bootstrap_counts(clusters, draws=draws, rng=rng)):
        left = spectrum(shift * np.sqrt(counts)[:, None], k=k).left
        count = min(left.shape[1], directions.shape[1])
        cosines[draw, :count] = np.abs((directions[:, :count] * left[:, :count]).sum(axis=0))
    return np.median(cosines, axis=0)


def _exceedances(
    rows: Float[np.ndarray, "row prompt"],
    kept: np.ndarray,
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
    margin: float,
) -> list[Exceedance]:
    """All pairs of kept rows, later minus earlier, corrected over the pairs."""
    pairs = [(int(i), int(j)) for place, i in enumerate(kept) for j in kept[place + 1 :]]
    p_values = [
        sign_flip_test(rows[i], rows[j], clusters, draws=draws, rng=rng).p_greater for i, j in pairs
    ]
    adjusted = holm(p_values)
    tests = []
    for place, (i, j) in enumerate(pairs):
        gap = rows[j] - rows[i]
        # One-sided level ALPHA / (pairs not yet rejected at this step).
        step = sum(p >= p_values[place] for p in p_values)
        low, _ = cluster_t_interval(gap, clusters, level=1 - 2 * ALPHA / step)
        _, high = cluster_t_interval(gap, clusters, level=1 - 2 * ALPHA / len(pairs))
        difference = float(gap.mean())
        exceeds = difference > margin and low > 0 and adjusted[place] <= ALPHA
        tests.append(
            Exceedance(i, j, difference, low, high, p_values[place], adjusted[place], exceeds)
        )
    return tests
