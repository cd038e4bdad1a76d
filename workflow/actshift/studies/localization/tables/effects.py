"""What an edit does on a cell: change of each log-prob, effect on the margin, share of the gap.

Every number comes with its bootstrap resamples; differences and ratios are taken on both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.cluster_rows import columns
from actshift.maths.intervals import finite_ends
from actshift.maths.resampling import ClusterResamples, draw_clusters
from actshift.random_streams import PATCH_EFFECTS
from actshift.studies.localization.tables.inputs import Cell, Rows
from actshift.vocab import Role

#: Resamples of the clusters of a cell.
DRAWS = 2000
#: Of each direction and operation: the edited model, and the sign that carries base to tuned.
_RECEIVERS: dict[str, tuple[Role, int]] = {
    "forward": ("base", 1),
    "reverse": ("tuned", -1),
    "insert": ("base", 1),
    "remove": ("tuned", -1),
}


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
        """Each number times a constant."""
        return Estimate(self.value * factor, self.draws * factor, self.clusters)

    def over(self, other: "Estimate") -> "Estimate":
        """Ratio, resampled as a ratio; NaN where the denominator's interval holds 0.

        `other` has one row for each row, or one for all.
        """
        sound = np.broadcast_to(other.nonzero, self.value.shape)
        below = np.where(sound, np.broadcast_to(other.value, self.value.shape), np.nan)
        drawn = np.where(sound[:, None], np.broadcast_to(other.draws, self.draws.shape), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(self.value / below, self.draws / drawn, self.clusters)

    def at(self, rows: Int[np.ndarray, " kept"] | Sequence[int]) -> "Estimate":
        """Some of the rows."""
        places = np.asarray(rows, dtype=np.int64)
        return Estimate(self.value[places], self.draws[places], self.clusters)

    def known_as(self, known: bool) -> "Estimate":
        """The same numbers, or none at all."""
        return self if known else self.times(float("nan"))

    def columns(self, name: str) -> list[dict[str, object]]:
        """Columns `name`, `name_low` and `name_high` of each row."""
        return columns(name, self.value, self.ends)


def following(curve: Estimate) -> Estimate:
    """Each row minus the row before it; the first row minus 0."""
    before = np.concatenate([np.zeros(1), curve.value[:-1]])
    drawn = np.concatenate([np.zeros_like(curve.draws[:1]), curve.draws[:-1]])
    return curve - Estimate(before, drawn, curve.clusters)


def peak_of(curve: Estimate) -> tuple[Estimate, Int[np.ndarray, " draw"], int]:
    """The largest row, taken anew on each resample.

    Returns:
        The maximum as one row, its row on each resample, and its row on the pairs as they are.
    """
    place, places = int(np.argmax(curve.value)), np.argmax(curve.draws, axis=0)
    return chosen_rows(curve, places, place), places, place


def chosen_rows(curve: Estimate, places: Int[np.ndarray, " draw"], place: int) -> Estimate:
    """One row, another one on each resample."""
    drawn = np.take_along_axis(curve.draws, places[None, :], axis=0)
    return Estimate(curve.value[[place]], drawn, curve.clusters)


@dataclass(frozen=True, eq=False)
class Effects:
    """What edits of one receiver do, one row an edit.

    Attributes:
        logp: Mean log-prob of both completions with the edit, nats.
        chosen: Mean change of log p(chosen), nats.
        rejected: Mean change of log p(rejected), nats.
        per_token: Mean change of the margin where each log-prob is divided by its tokens.
        goal: Margin of the donor minus that of the receiver, one row.
        decided: Whether the interval of the gap lies on one side of 0.
    """

    logp: Float[np.ndarray, "edit 2"]
    chosen: Estimate
    rejected: Estimate
    per_token: Float[np.ndarray, " edit"]
    goal: Estimate
    decided: bool

    @cached_property
    def effect(self) -> Estimate:
        """Mean over pairs of margin with the edit minus margin without it, nats."""
        return self.chosen - self.rejected

    @property
    def sign(self) -> float:
        """1 where the donor's mean margin is the larger one, else -1."""
        return float(np.sign(self.goal.value[0]))

    @cached_property
    def towards(self) -> Estimate:
        """The effect, positive where it carries the receiver to the donor; none without a gap."""
        return self.effect.times(self.sign).known_as(self.decided)

    @cached_property
    def share(self) -> Estimate:
        """Mean effect over the mean margin of donor minus receiver; none without a gap."""
        return self.effect.over(self.goal).known_as(self.decided)

    def columns(self) -> Rows:
        """The columns about the effect, one row an edit."""
        rest: Rows = [
            {
                "effect_per_token": float(self.per_token[row]),
                "logp_chosen": float(chosen),
                "logp_rejected": float(rejected),
                # Where both log-probs fall no preference is moved, the model is hurt.
                "damage": int(self.chosen.value[row] < 0 and self.rejected.value[row] < 0),
            }
            for row, (chosen, rejected) in enumerate(self.logp)
        ]
        return joined(
            self.effect.columns("effect"),
            self.chosen.columns("chosen_change"),
            self.rejected.columns("rejected_change"),
            rest,
        )

    def with_share(self) -> Rows:
        """`columns` and the share of the gap."""
        return joined(self.columns(), self.share.columns("share"))


@dataclass(frozen=True, eq=False)
class Sample:
    """A cell with its resamples: every number of the cell is of the same ones."""

    pair: str
    cell: Cell
    resamples: ClusterResamples

    @classmethod
    def of(cls, cell: Cell, *, pair: str, seed: int) -> "Sample":
        """Draw the clusters of a cell with replacement."""
        drawn = draw_clusters(cell.clusters, draws=DRAWS, rng=PATCH_EFFECTS.rng(seed))
        return cls(pair, cell, ClusterResamples(*drawn))

    def means(self, values: Float[np.ndarray, "row pair"]) -> Estimate:
        """Mean over pairs of each row, and on each resample."""
        drawn = self.resamples.draws(values)
        return Estimate(values.mean(axis=1), drawn, len(self.resamples.sizes))

    @property
    def keys(self) -> dict[str, object]:
        """Columns that name the cell, and its size."""
        return {
            "pair": self.pair,
            **self.cell.facts,
        }

    @cached_property
    def gap(self) -> Estimate:
        """Mean margin of tuned minus base, nats, one row."""
        return self.means(self.cell.gap[None, :])

    @cached_property
    def decided(self) -> bool:
        """Whether there is a gap to have a share of."""
        return bool(self.gap.nonzero[0])

    @cached_property
    def gap_columns(self) -> dict[str, object]:
        """The gap, and whether shares of it mean anything."""
        gap = self.gap.columns("gap")[0]
        low, high = self.gap.ends[0]
        why = f"the gap's interval, {low:.3g} to {high:.3g} nats, holds 0"
        if np.isnan(low):
            why = "one cluster gives no interval of the gap"
        if self.decided:
            return {**gap, "status": "decided", "why": ""}
        return {**gap, "status": "no gap", "why": why}

    def margins(self, direction: str, *, donor: bool = False) -> Float[np.ndarray, " pair"]:
        """Margins of the model that is edited, or of the other one, nats."""
        edits_base = _RECEIVERS[direction][0] == "base"
        return self.cell.margins["base" if edits_base != donor else "tuned"]

    def effects(self, logp: Float[np.ndarray, "edit pair 2"], direction: str) -> Effects:
        """Compare edits with their receiver; `direction` may be an operation too."""
        role, sign = _RECEIVERS[direction]
        plain = self.cell.plain[role]
        change = logp - plain
        per_token = change / self.cell.tokens
        return Effects(
            logp=logp.mean(axis=1),
            chosen=self.means(change[..., 0]),
            rejected=self.means(change[..., 1]),
            per_token=(per_token[..., 0] - per_token[..., 1]).mean(axis=1),
            goal=self.gap.times(float(sign)),
            decided=self.decided,
        )

    def rows(self, facts: Rows, *parts: Rows) -> Rows:
        """Rows of a table: cell, facts, measured columns, gap and status."""
        return [{**self.keys, **row, **self.gap_columns} for row in joined(facts, *parts)]


def blank(*names: str) -> dict[str, object]:
    """Empty cells."""
    return {name: None for name in names}


def joined(*parts: Rows) -> Rows:
    """Columns of the same rows side by side."""
    return [
        {key: value for part in row for key, value in part.items()}
        for row in zip(*parts, strict=True)
    ]
