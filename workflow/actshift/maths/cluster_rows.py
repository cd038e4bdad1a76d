"""Means, rates and changes of many rows over the same clustered prompts, all at once.

What `maths.intervals` and `maths.paired` do for one row, here for hundreds that share one set of
resamples: differences between rows are then not resampling noise.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from actshift.maths.intervals import finite_ends
from actshift.maths.resampling import ClusterResamples, draw_clusters
from actshift.random_streams import ADAPTER_ROWS

#: Resamples of the clusters.
DRAWS = 1000


class ClusterRows(ClusterResamples):
    """Resamples of the clusters of some prompts, and what many rows over them amount to."""

    @classmethod
    def of(cls, clusters: Sequence[str], *, seed: int, draws: int = DRAWS) -> "ClusterRows":
        """Draw clusters with replacement; equal clusters and seeds give equal resamples.

        Args:
            clusters: Cluster of each prompt; there must be one.
            seed: Of the run.
            draws: Number of resamples.
        """
        rng = ADAPTER_ROWS.rng(seed, len(set(clusters)))
        return cls(*draw_clusters(clusters, draws=draws, rng=rng))

    @property
    def facts(self) -> dict[str, object]:
        """Columns `n` and `clusters`."""
        return {"n": len(self.clusters), "clusters": len(self.sizes)}

    def ends(self, drawn: Float[np.ndarray, "row draw"]) -> Float[np.ndarray, "row end"]:
        """Interval of each row of resampled numbers; NaN unless all are finite."""
        return finite_ends(drawn, clusters=len(self.sizes), least=1.0)

    def design_effects(self, values: Float[np.ndarray, "row prompt"]) -> Float[np.ndarray, " row"]:
        """`maths.intervals.design_effect` of each row."""
        values = np.asarray(values, dtype=np.float64)
        n, count = len(self.clusters), len(self.sizes)
        mean = values.mean(axis=1, keepdims=True)
        spread = np.square(values - mean).sum(axis=1)
        copies = float(np.square(self.sizes).sum() / n)
        flat = spread <= 1e-24 * np.maximum(mean[:, 0] ** 2, 1.0) * n
        if count < 2:
            return np.full(len(values), copies)
        between = np.square(values @ self.member - self.sizes * mean).sum(axis=1)
        between *= count / (count - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(flat, copies, between / (spread * n / (n - 1)))

    def wilson(self, values: Float[np.ndarray, "row prompt"]) -> Float[np.ndarray, "row end"]:
        """`maths.intervals.clustered_wilson` of each row of outcomes within 0 and 1."""
        rate = np.asarray(values, dtype=np.float64).mean(axis=1)
        n = len(self.clusters) / np.maximum(1.0, self.design_effects(values))
        z = float(ndtri(0.975))
        middle = rate + z * z / (2 * n)
        half = z * np.sqrt(np.maximum(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))
        low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
        # At 0 and 1 the end is exact; rounding must not carry it outside.
        low = np.where(rate <= 0, 0.0, np.maximum(low, 0.0))
        return np.column_stack([low, np.where(rate >= 1, 1.0, np.minimum(high, 1.0))])

    def change_ends(self, gaps: Float[np.ndarray, "row prompt"]) -> Float[np.ndarray, "row end"]:
        """Interval of each mean difference of rates, as `maths.paired.compare_paired` has it.

        The wider of the cluster bootstrap's and `maths.intervals.discordant_interval`'s, which
        has a width where nothing changed.

        Args:
            gaps: Differences of two outcomes in [0, 1].
        """
        gaps = np.asarray(gaps, dtype=np.float64)
        drawn = self.ends(self.draws(gaps))
        rose, fell = np.maximum(gaps, 0.0), np.maximum(-gaps, 0.0)
        up, down = rose.mean(axis=1), fell.mean(axis=1)
        up_ends, down_ends = self.wilson(rose), self.wilson(fell)
        low = up - down - np.hypot(up - up_ends[:, 0], down_ends[:, 1] - down)
        high = up - down + np.hypot(up_ends[:, 1] - up, down - down_ends[:, 0])
        outer = np.column_stack([np.maximum(low, -1.0), np.minimum(high, 1.0)])
        return np.column_stack(
            [np.fmin(drawn[:, 0], outer[:, 0]), np.fmax(drawn[:, 1], outer[:, 1])]
        )

    def rate_columns(
        self, name: str, values: Float[np.ndarray, "row prompt"]
    ) -> list[dict[str, object]]:
        """Columns of the mean of each row of outcomes within 0 and 1, with its `wilson` ends."""
        return columns(name, values.mean(axis=1), self.wilson(values))

    def change_columns(
        self, name: str, gaps: Float[np.ndarray, "row prompt"]
    ) -> list[dict[str, object]]:
        """Columns of the mean of each row of differences, with its `change_ends`."""
        return columns(name, gaps.mean(axis=1), self.change_ends(gaps))


def merged(*parts: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Rows whose columns come in several parts of equally many rows."""
    return [
        {name: value for part in row for name, value in part.items()}
        for row in zip(*parts, strict=True)
    ]


def columns(
    name: str, values: Float[np.ndarray, " row"], ends: Float[np.ndarray, "row end"]
) -> list[dict[str, object]]:
    """Columns `name`, `name_low` and `name_high` of each row; no negative zeros.

    Args:
        name: Of the numbers.
        values: The numbers.
        ends: Their intervals.
    """
    # Adding 0 makes a negative zero, such as no effect over a negative gap, a plain one.
    return [
        {
            name: float(value) + 0.0,
            f"{name}_low": float(low) + 0.0,
            f"{name}_high": float(high) + 0.0,
        }
        for value, (low, high) in zip(values, ends, strict=True)
    ]
