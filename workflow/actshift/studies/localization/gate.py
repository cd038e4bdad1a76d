"""The gate of the study, and the margins behind it, whether it was met or not (torch-free).

Without a gap between the two models there is nothing to localise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.io.missed import was_passed_on
from actshift.io.tables import read_table
from actshift.maths.intervals import cluster_mean_interval
from actshift.random_streams import MARGIN_GATE
from actshift.studies.localization.study import STUDY

_DRAWS = 2000


@dataclass(frozen=True)
class MarginGate:
    """Mean over a condition's pairs of margin(tuned) - margin(base), nats, with its interval."""

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

    `gap` is the margin of tuned minus that of base, nats.
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


def collect_margins(files: Mapping[str, Path], *, seed: int) -> pd.DataFrame:
    """Mean margins of every pair's two models, condition by condition.

    margin = log p(chosen | prompt) - log p(rejected | prompt), nats summed over tokens.

    A pair whose models missed their gates has an empty file.

    Returns:
        Table `preference_margins`; the gap is tuned minus base with its cluster interval, the one
        that the gate judges.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    rows = [
        {
            "pair": pair,
            "condition": str(condition),
            "n": gate.n,
            "clusters": gate.clusters,
            "margin_base": margins["margin_base"].mean(),
            "margin_tuned": margins["margin_tuned"].mean(),
            "gap": gate.mean,
            "gap_low": gate.low,
            "gap_high": gate.high,
        }
        for pair, path in files.items()
        if not was_passed_on(path)
        for condition, margins in read_table(path).groupby("condition", sort=False)
        for gate in [
            margin_gate(
                margins["gap"].to_numpy(dtype=float),
                margins["condition"].astype(str).tolist(),
                margins["cluster"].astype(str).tolist(),
                seed=seed,
            )
        ]
    ]
    return pd.DataFrame(rows, columns=list(STUDY.table("preference_margins").names))
