"""Lanes that a row of a table stands for, and their outcomes beside the same model's without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.cluster_rows import ClusterRows
from actshift.studies.misalignment.choose import half_of_best, mean_gain
from actshift.studies.misalignment.kinds import MAPPED_NULLS, NULLS
from actshift.studies.misalignment.tables.inputs import Lanes
from actshift.vocab import NONCODE

#: What lanes of one row share; `fit_on` where lanes have it.
KEYS = (
    *("receiver", "donor", "protocol", "layer", "control", "source", "orthogonal"),
    *("coeff", "norm_rule", "fit_on"),
)
_MEANS = ("scale", "cosine", "kl_select")
ALL_NULLS = (*NULLS, *MAPPED_NULLS)
#: An edit that breaks this many more answers than the model does by itself decides nothing.
BROKEN = 0.1


@dataclass(frozen=True, eq=False)
class Group:
    """One lane, or a null's draws.

    Attributes:
        facts: What its lanes share.
        rows: Lanes that count: those at equal KL where KL is what is equal, else all.
        asked: How many lanes there are.
        plain: The lane of the same receiver without an edit.
        unmatched: Whether KL was not reached by half of the lanes.
        scale: Mean over its lanes; so `kl_select`.
        cosine: With the receiver's own v; of draws the median of its size.
    """

    facts: dict[str, object]
    rows: Int[np.ndarray, " lane"]
    asked: int
    plain: Int[np.ndarray, " one"]
    unmatched: bool
    scale: float
    cosine: float
    kl_select: float

    @property
    def is_null(self) -> bool:
        """Whether its lanes are draws of a null."""
        return self.facts["control"] in ALL_NULLS

    def key(self, *without: str) -> tuple[object, ...]:
        """What tells it from other groups, but for some columns; an empty cell equals another."""
        kept = (value for name, value in self.facts.items() if name not in without)
        return tuple(None if value != value else value for value in kept)


@lru_cache(maxsize=2)  # the lanes of one pair, which four tables ask for
def groups_of(lanes: Lanes) -> tuple[Group, ...]:
    """The groups of all lanes, in the order of their first lanes.

    Args:
        lanes: Of one pair; a receiver without a plain lane is left out.
    """
    names = [name for name in KEYS if name in lanes.facts]
    matched = np.asarray(lanes.facts["status"] == "ok")
    means = {name: lanes.facts[name].to_numpy(np.float64) for name in _MEANS}
    by_key: Any = lanes.facts.groupby(names, dropna=False, sort=False).indices
    found: list[Group] = []
    for values, places in sorted(by_key.items(), key=_first):
        facts: dict[str, object] = dict(zip(names, values, strict=True))
        plain = lanes.plain(str(facts["receiver"]), str(facts["protocol"]))
        if len(plain):
            found.append(_group(facts, np.asarray(places, dtype=np.int64), matched, means, plain))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Groups that were asked the same questions.

    Attributes:
        lanes: Where they come from.
        groups: In order.
        columns: The questions.
        sample: Their clusters.
    """

    lanes: Lanes
    groups: tuple[Group, ...]
    columns: Int[np.ndarray, " prompt"]
    sample: ClusterRows

    def edited(self, name: str) -> Float[np.ndarray, "group prompt"]:
        """A judged number with the edit, mean over the lanes of each group; NaN where unknown."""
        return np.stack([self._mean(name, group.rows) for group in self.groups])

    def plain(self, name: str) -> Float[np.ndarray, "group prompt"]:
        """The same without the edit."""
        rows = np.concatenate([group.plain for group in self.groups])
        return self.lanes.values(name, rows, self.columns)

    @cached_property
    def kl(self) -> Float[np.ndarray, " group"]:
        """Mean KL of the first token, nats."""
        return np.array([_known_mean(self._kl(group)) for group in self.groups])

    @cached_property
    def broken(self) -> list[bool]:
        """Whether an edit breaks more than a tenth of the answers that were whole without it."""
        more = self.edited("degenerate").mean(axis=1) - self.plain("degenerate").mean(axis=1)
        return [bool(one) for one in more > BROKEN]

    def statuses(self) -> list[dict[str, object]]:
        """Columns `status` and `why` of each group."""
        return [_status(one, broken) for one, broken in zip(self.groups, self.broken, strict=True)]

    def _mean(self, name: str, rows: Int[np.ndarray, " lane"]) -> Float[np.ndarray, " prompt"]:
        return known_means(self.lanes.values(name, rows, self.columns), axis=0)

    def _kl(self, group: Group) -> Float[np.ndarray, "lane prompt"]:
        return self.lanes.kl[np.ix_(group.rows, self.columns)]


def buckets(
    lanes: Lanes, groups: Sequence[Group], columns: Int[np.ndarray, " prompt"], *, seed: int
) -> list[Bucket]:
    """Sort groups by which of some questions all their lanes, and the plain one, were asked.

    Args:
        lanes: Of one pair.
        groups: Any of its groups; one that was asked none of the questions is left out.
        columns: The questions.
        seed: Of the resamples.
    """
    sorted_out: dict[bytes, tuple[Int[np.ndarray, " prompt"], list[Group]]] = {}
    for group in groups:
        kept = lanes.all_asked(np.concatenate([group.rows, group.plain]), columns)
        if len(kept):
            sorted_out.setdefault(kept.tobytes(), (kept, []))[1].append(group)
    return [
        Bucket(lanes, tuple(own), kept, lanes.sample(kept, seed=seed))
        for kept, own in sorted_out.values()
    ]


def known_means(values: Float[np.ndarray, "..."], *, axis: int) -> Float[np.ndarray, "..."]:
    """Means along an axis over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _known_mean(values: Float[np.ndarray, "..."]) -> float:
    return float(known_means(np.ravel(values), axis=0))


def _first(one: tuple[Any, Any]) -> int:
    return int(one[1][0])


def _group(
    facts: dict[str, object],
    rows: Int[np.ndarray, " lane"],
    matched: Bool[np.ndarray, " every"],
    means: Mapping[str, Float[np.ndarray, " every"]],
    plain: Int[np.ndarray, " one"],
) -> Group:
    reached = rows[matched[rows]]
    own = reached if len(reached) else rows
    told = {name: _known_mean(values[own]) for name, values in means.items()}
    if facts["control"] in ALL_NULLS:
        # Draws point both ways: a mean cosine of 0 would hide that they lie along v.
        sizes = np.abs(means["cosine"][own])
        told["cosine"] = float(np.median(sizes)) if np.isfinite(sizes).all() else float("nan")
    return Group(facts, own, len(rows), plain, 2 * len(reached) < len(rows), **told)


def _status(group: Group, broken: bool) -> dict[str, object]:
    matched = 0 if group.unmatched and len(group.rows) == group.asked else len(group.rows)
    reached = f"{matched} of {group.asked} lanes reach the KL of the direction"
    if group.unmatched:
        return {"status": "unmatched", "why": reached}
    if broken:
        return {"status": "broken", "why": "more than a tenth more answers are degenerate"}
    return {"status": "ok", "why": reached if len(group.rows) < group.asked else ""}


SELECT = "select"


def chosen(lanes: Lanes, edits: Sequence[Group]) -> Group | None:
    """The edit of the chosen coefficient, by gain in repaired answers on select questions.

    Args:
        lanes: Of one pair.
        edits: One direction at every coefficient.

    Returns:
        None where no edit was asked a select question.
    """
    by_coeff = {float(str(one.facts["coeff"])): one for one in edits}
    gains = {coeff: select_gain(lanes, one) for coeff, one in by_coeff.items()}
    coeff = half_of_best(gains)
    return None if coeff is None else by_coeff[coeff]


def select_gain(lanes: Lanes, group: Group) -> float:
    """Mean change of repaired answers on non-code questions of split select; NaN without any."""
    columns = lanes.all_asked(
        np.concatenate([group.rows, group.plain]), lanes.asked(condition=NONCODE, split=SELECT)
    )
    if not len(columns):
        return float("nan")
    edited, plain = (lanes.values("repaired", rows, columns) for rows in (group.rows, group.plain))
    return mean_gain(edited, plain)
