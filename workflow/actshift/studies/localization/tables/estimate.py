"""Numbers with their bootstrap resamples, and the algebra of differences and ratios on both."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.cluster_rows import columns
from actshift.maths.intervals import finite_ends
from actshift.maths.resampling import ClusterResamples, draw_clusters
from actshift.random_streams import PATCH_EFFECTS

#: Resamples of the clusters of a cell.
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Estimate:
    """Numbers, one a row, and what they are on each resample of the clusters.

    Attributes:
        value: On the pairs as they are.
        draws: On the resamples; draw i is the same resample for all numbers of a cell.
        clusters: How many were resampled.
    """

    value: Float[np.ndarray, " row"]
    draws: Float[np.ndarray, "row draw"]
    clusters: int

    @cached_property
    def ends(self) -> Float[np.ndarray, "row 2"]:
        """Interval of each row; NaN where a draw has no number."""
        return finite_ends(self.draws, clusters=self.clusters, least=1.0)

    @cached_property
    def nonzero(self) -> Bool[np.ndarray, " row"]:
        """Whether an interval lies on one side of 0."""
        return (self.ends[:, 0] > 0) | (self.ends[:, 1] < 0)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Difference, resample by resample."""
        return Estimate(self.value - other.value, self.draws - other.draws, self.clusters)

    def times(self, factor: float) -> "Estimate":
        """Each number times a constant.

        Args:
            factor: The constant.
        """
        return Estimate(self.value * factor, self.draws * factor, self.clusters)

    def over(self, other: "Estimate") -> "Estimate":
        """Ratio, resampled as a ratio; NaN where the interval of the denominator holds 0.

        Args:
            other: Denominators, one a row or one for all.
        """
        sound = np.broadcast_to(other.nonzero, self.value.shape)
        below = np.where(sound, np.broadcast_to(other.value, self.value.shape), np.nan)
        drawn = np.where(sound[:, None], np.broadcast_to(other.draws, self.draws.shape), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(self.value / below, self.draws / drawn, self.clusters)

    def at(self, rows: Int[np.ndarray, " kept"] | Sequence[int]) -> "Estimate":
        """Some of the rows.

        Args:
            rows: Their places; -1 is the last one.
        """
        places = np.asarray(rows, dtype=np.int64)
        return Estimate(self.value[places], self.draws[places], self.clusters)

    def known_as(self, known: bool) -> "Estimate":
        """The same numbers, or none at all.

        Args:
            known: Whether they mean anything.
        """
        return self if known else self.times(float("nan"))

    def columns(self, name: str) -> list[dict[str, object]]:
        """Columns `name`, `name_low` and `name_high` of each row.

        Args:
            name: Of the number.
        """
        return columns(name, self.value, self.ends)


class Resampler(ClusterResamples):
    """One set of cluster counts, shared by everything that is measured on a cell."""

    @classmethod
    def of(cls, clusters: Sequence[str], *, seed: int, draws: int = DRAWS) -> "Resampler":
        """Draw clusters with replacement.

        Args:
            clusters: Of each pair.
            seed: Of the run.
            draws: Number of resamples.
        """
        return cls(*draw_clusters(clusters, draws=draws, rng=PATCH_EFFECTS.rng(seed)))

    def means(self, values: Float[np.ndarray, "row pair"]) -> Estimate:
        """Mean over pairs of each row, and on each resample.

        Args:
            values: One value a pair.
        """
        return Estimate(values.mean(axis=1), self.draws(values), len(self.sizes))


def following(curve: Estimate) -> Estimate:
    """Each row minus the row before it; the first row minus 0.

    Args:
        curve: Rows in order.
    """
    before = np.concatenate([np.zeros(1), curve.value[:-1]])
    drawn = np.concatenate([np.zeros_like(curve.draws[:1]), curve.draws[:-1]])
    return curve - Estimate(before, drawn, curve.clusters)


def peak_of(curve: Estimate) -> tuple[Estimate, Int[np.ndarray, " draw"], int]:
    """The largest row, taken anew on each resample.

    Args:
        curve: Rows of one curve.

    Returns:
        The maximum as one row, its row on each resample, and its row on the pairs as they are.
    """
    place, places = int(np.argmax(curve.value)), np.argmax(curve.draws, axis=0)
    return chosen_rows(curve, places, place), places, place


def chosen_rows(curve: Estimate, places: Int[np.ndarray, " draw"], place: int) -> Estimate:
    """One row, another one on each resample.

    Args:
        curve: Rows of one curve.
        places: Row taken on each resample.
        place: Row taken on the pairs as they are.
    """
    drawn = np.take_along_axis(curve.draws, places[None, :], axis=0)
    return Estimate(curve.value[[place]], drawn, curve.clusters)
