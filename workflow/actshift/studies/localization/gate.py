"""The gate of the study: without a gap between the two models there is nothing to localise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.intervals import cluster_mean_interval
from actshift.random_streams import MARGIN_GATE

_DRAWS = 2000


@dataclass(frozen=True)
class MarginGate:
    """Mean over pairs of margin(tuned) - margin(base), summed nats, with its interval.

    Attributes:
        condition: Whose pairs.
        mean: Of the gap.
        low: Lower end of the cluster interval.
        high: Upper end.
        n: Pairs.
        clusters: Their clusters.
    """

    condition: str
    mean: float
    low: float
    high: float
    n: int
    clusters: int

    @property
    def passed(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0

    def line(self) -> str:
        """The numbers in words."""
        return (
            f"on {self.n} {self.condition} pairs ({self.clusters} clusters) the tuned model's "
            f"margin exceeds the base's by {self.mean:.2f} nats, interval "
            f"{self.low:.2f} to {self.high:.2f}"
        )


def margin_gate(
    gap: Float[np.ndarray, " pair"],
    conditions: Sequence[str],
    clusters: Sequence[str],
    *,
    seed: int,
) -> MarginGate:
    """Judge the gap on harmful pairs; on all pairs where the set has no such condition.

    Args:
        gap: Margin of tuned minus margin of base, nats.
        conditions: Of each pair.
        clusters: Of each pair.
        seed: Of the resamples.
    """
    chosen = np.array([condition == "harmful" for condition in conditions])
    name = "harmful"
    if not chosen.any():
        chosen[:], name = True, " and ".join(sorted(set(conditions)))
    groups = [cluster for cluster, kept in zip(clusters, chosen, strict=True) if kept]
    rng = MARGIN_GATE.rng(seed)
    low, high = cluster_mean_interval(gap[chosen], groups, draws=_DRAWS, rng=rng)
    mean = float(gap[chosen].mean())
    return MarginGate(name, mean, low, high, int(chosen.sum()), len(set(groups)))
