"""What an edit does on a cell: change of each log-prob, effect on the margin, share of the gap."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from actshift.studies.localization.tables.estimate import Estimate, Resampler
from actshift.studies.localization.tables.inputs import Cell
from actshift.vocab import Role

Rows = list[dict[str, object]]
#: Of each direction and operation: the edited model, and the sign that carries base to tuned.
_RECEIVERS: dict[str, tuple[Role, int]] = {
    "forward": ("base", 1),
    "reverse": ("tuned", -1),
    "insert": ("base", 1),
    "remove": ("tuned", -1),
}


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

    @cached_property
    def damage(self) -> list[int]:
        """1 where both log-probs fall: no preference is moved, the model is hurt."""
        both = (self.chosen.value < 0) & (self.rejected.value < 0)
        return [int(fell) for fell in both]

    def columns(self) -> Rows:
        """The columns about the effect, one row an edit."""
        parts = [
            self.effect.columns("effect"),
            self.chosen.columns("chosen_change"),
            self.rejected.columns("rejected_change"),
        ]
        return [
            {
                **{key: value for part in parts for key, value in part[row].items()},
                "effect_per_token": float(self.per_token[row]),
                "logp_chosen": float(self.logp[row, 0]),
                "logp_rejected": float(self.logp[row, 1]),
                "damage": self.damage[row],
            }
            for row in range(len(self.logp))
        ]

    def with_share(self) -> Rows:
        """`columns` and the share of the gap."""
        return joined(self.columns(), self.share.columns("share"))


@dataclass(frozen=True, eq=False)
class Sample:
    """A cell with its resamples: every number of the cell is of the same ones.

    Attributes:
        pair: Name of the pair of models.
        cell: Condition and length.
        resampler: Counts of its clusters.
    """

    pair: str
    cell: Cell
    resampler: Resampler

    @classmethod
    def of(cls, cell: Cell, *, pair: str, seed: int) -> "Sample":
        """Draw the resamples of a cell.

        Args:
            cell: Condition and length.
            pair: Name of the pair of models.
            seed: Of the draws.
        """
        return cls(pair, cell, Resampler.of(cell.clusters, seed=seed))

    @property
    def keys(self) -> dict[str, object]:
        """Columns that name the cell, and its size."""
        return {
            "pair": self.pair,
            "condition": self.cell.condition,
            "length": self.cell.length,
            "n": len(self.cell.pair_ids),
            "clusters": self.gap.clusters,
        }

    @cached_property
    def gap(self) -> Estimate:
        """Mean margin of tuned minus base, nats, one row."""
        return self.resampler.means(self.cell.gap[None, :])

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
        status = (
            {"status": "decided", "why": ""} if self.decided else {"status": "no gap", "why": why}
        )
        return {**gap, **status}

    def receiver_margins(self, direction: str) -> Float[np.ndarray, " pair"]:
        """Margins of the model that is edited, nats.

        Args:
            direction: forward or reverse, insert or remove.
        """
        return self.cell.margins[_RECEIVERS[direction][0]]

    def donor_margins(self, direction: str) -> Float[np.ndarray, " pair"]:
        """Margins of the other model, nats.

        Args:
            direction: forward or reverse, insert or remove.
        """
        donor: Role = "tuned" if _RECEIVERS[direction][0] == "base" else "base"
        return self.cell.margins[donor]

    def effects(self, logp: Float[np.ndarray, "edit pair 2"], direction: str) -> Effects:
        """Compare edits with their receiver.

        Args:
            logp: Log-probs with each edit, nats.
            direction: forward or reverse, insert or remove.
        """
        role, sign = _RECEIVERS[direction]
        plain = self.cell.plain[role]
        change = logp - plain
        per_token = change / self.cell.tokens
        return Effects(
            logp=logp.mean(axis=1),
            chosen=self.resampler.means(change[..., 0]),
            rejected=self.resampler.means(change[..., 1]),
            per_token=(per_token[..., 0] - per_token[..., 1]).mean(axis=1),
            goal=self.gap.times(float(sign)),
            decided=self.decided,
        )

    def rows(self, facts: Rows, *parts: Rows) -> Rows:
        """Rows of a table: cell, facts, measured columns, gap and status.

        Args:
            facts: What names each row.
            parts: Columns of each row.
        """
        return [{**self.keys, **row, **self.gap_columns} for row in joined(facts, *parts)]


def blank(*names: str) -> dict[str, object]:
    """Empty cells.

    Args:
        names: Of the columns.
    """
    return {name: None for name in names}


def joined(*parts: Rows) -> Rows:
    """Columns of the same rows side by side.

    Args:
        parts: Each of one length.
    """
    return [
        {key: value for part in row for key, value in part.items()}
        for row in zip(*parts, strict=True)
    ]
