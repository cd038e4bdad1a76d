"""Held-out rank: do the directions fitted on some topics carry the shift of other topics?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.resampling import cluster_bootstrap_counts, stability_range


@dataclass(frozen=True, slots=True)
class HeldoutShares:
    """Energy of a held-out shift in the first k fitted directions; index 0 is k = 1.

    Attributes:
        share: CVE(k), the share of the held-out energy.
        low, high: Range of CVE(k) over resampled held-out clusters (95 %).
        null: Mean CVE(k) of the same directions with shuffled coordinates.
        null_p95: 95th percentile of that null.
        gain: Share of the energy *still unexplained* after k - 1 directions that direction k takes.
        gain_null_p95: 95th percentile of that gain for direction k with shuffled coordinates.
        knee: Last k of the leading run with gain above its null; 0 when direction 1 fails.
    """

    share: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    null: Float[np.ndarray, " k"]
    null_p95: Float[np.ndarray, " k"]
    gain: Float[np.ndarray, " k"]
    gain_null_p95: Float[np.ndarray, " k"]
    knee: int


def heldout_energy(
    left: Float[np.ndarray, "d_model k"], heldout: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, " k"]:
    """CVE(k) = ||U_k(fit)^T M_heldout||_F^2 / ||M_heldout||_F^2, for k = 1, 2, ...

    Args:
        left: Orthonormal directions fitted elsewhere, in order, `[d_model, k]`.
        heldout: Shift of prompts that took no part in the fit.

    Returns:
        Shares in [0, 1], rising; NaN when the held-out shift is zero.
    """
    total = float(np.sum(np.square(heldout)))
    energies = np.sum(np.square(heldout @ left), axis=0)
    return np.cumsum(energies) / total if total > 0 else np.full(left.shape[1], np.nan)


def heldout_shares(
    left: Float[np.ndarray, "d_model k"],
    heldout: Float[np.ndarray, "prompt d_model"],
    clusters: Sequence[str],
    *,
    draws: int,
    range_draws: int,
    rng: np.random.Generator,
) -> HeldoutShares:
    """CVE(k) with its range over held-out clusters, its shuffled-coordinates null and the knee.

    The null keeps the entries of every direction and moves them to random coordinates (one
    permutation a draw, so the directions stay orthonormal). A direction that holds most of the
    energy leaves less than k/d of it to the next ones, so the knee does not compare shares of
    the total: it compares the share of the remaining energy, after the *true* first k - 1
    directions, with what the shuffled direction k takes of the same remainder.

    Args:
        left: Orthonormal fitted directions, in order.
        heldout: Held-out shift, one prompt a row.
        clusters: Cluster of each held-out prompt.
        draws: Draws of the null.
        range_draws: Resamples of the held-out clusters.
        rng: Seeded generator.

    Returns:
        Everything by k; the knee is 0 where nothing generalises.
    """
    d_model, k = left.shape
    scores = heldout @ left
    total = float(np.sum(np.square(heldout)))
    if total <= 0 or k == 0:
        blank = np.full(k, np.nan)
        return HeldoutShares(blank, blank, blank, blank, blank, blank, blank, 0)
    low, high = _cluster_range(scores, heldout, clusters, draws=range_draws, rng=rng)
    plain, conditional = np.empty((draws, k)), np.empty((draws, k))
    for draw in range(draws):
        shuffled = left[rng.permutation(d_model)]
        moved = heldout @ shuffled
        plain[draw] = np.cumsum(np.sum(np.square(moved), axis=0)) / total
        conditional[draw] = _conditional_energy(shuffled.T @ left, moved, scores)
    energy = np.sum(np.square(scores), axis=0)
    # What is left before direction k; rounding leaves about 1e-15 of the total when nothing is.
    remaining = total - np.concatenate([[0.0], np.cumsum(energy)[:-1]])
    spent = remaining <= 1e-12 * total
    safe = np.where(spent, 1.0, remaining)
    gain = np.where(spent, 0.0, energy / safe)
    gain_null = np.quantile(np.where(spent, 0.0, conditional / safe), 0.95, axis=0)
    return HeldoutShares(
        share=heldout_energy(left, heldout),
        low=low,
        high=high,
        null=plain.mean(axis=0),
        null_p95=np.quantile(plain, 0.95, axis=0),
        gain=gain,
        gain_null_p95=gain_null,
        knee=_leading_run(gain, gain_null),
    )


def _conditional_energy(
    overlap: Float[np.ndarray, "k k"],
    moved: Float[np.ndarray, "prompt k"],
    scores: Float[np.ndarray, "prompt k"],
) -> Float[np.ndarray, " k"]:
    """Energy that shuffled direction k takes of what true directions 1 .. k - 1 leave.

    Row k of `overlap` holds shuffled_k . u_j. Only j < k count: removing them from the shuffled
    direction and from the data is the same as subtracting their part of the scores.
    """
    earlier = np.tril(overlap, k=-1)
    taken = np.sum(np.square(moved - scores @ earlier.T), axis=0)
    length = 1.0 - np.sum(np.square(earlier), axis=1)
    return np.divide(taken, length, out=np.zeros_like(taken), where=length > 1e-9)


def _cluster_range(
    scores: Float[np.ndarray, "prompt k"],
    heldout: Float[np.ndarray, "prompt d_model"],
    clusters: Sequence[str],
    *,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    counts = cluster_bootstrap_counts(clusters, draws=draws, rng=rng).astype(np.float64)
    totals = counts @ np.sum(np.square(heldout), axis=1)
    energies = np.cumsum(counts @ np.square(scores), axis=1)
    shares = np.divide(
        energies,
        totals[:, None],
        out=np.full(energies.shape, np.nan),
        where=totals[:, None] > 0,
    )
    bounds = np.array([stability_range(column) for column in shares.T])
    return bounds[:, 0], bounds[:, 1]


def _leading_run(gain: Float[np.ndarray, " k"], null: Float[np.ndarray, " k"]) -> int:
    failed = np.flatnonzero(~(gain > null))
    return int(failed[0]) if failed.size else len(gain)
