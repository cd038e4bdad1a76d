"""What tables are made from: lanes of one pair as arrays, and the groups that rows stand for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pandas.api.types import is_numeric_dtype

from actshift.errors import UserError
from actshift.maths.cluster_rows import ClusterRows
from actshift.studies.misalignment.choose import half_of_best, mean_gain
from actshift.studies.misalignment.kinds import MAPPED_NULLS, NULLS
from actshift.vocab import NONCODE

#: Rows of a table.
Rows = list[dict[str, object]]
#: States at the last prompt token: model, layer, prompt ids -> [prompt, d_model].
StatesOf = Callable[[str, int, list[str]], Float[np.ndarray, "prompt d_model"]]
#: Columns of an answer that are averaged over prompts.
JUDGED = ("code", "insecure", "refused", "on_topic", "repaired", "empty", "short", "degenerate")
NUMBERS = ("distinct_2", "nll")


@dataclass(frozen=True, eq=False)
class Lanes:
    """Every lane of one pair's `steering` or `transfer`, and what it answered.

    Attributes:
        facts: A row a lane (`lanes.parquet`), by lane.
        prompts: A row a question, in the order of the columns below.
        answer: Row of `judged`; -1 where a lane was not asked.
        kl: KL(plain || edited) of the first token, nats; NaN where not measured.
        judged: A row a distinct answer.
    """

    facts: pd.DataFrame
    prompts: pd.DataFrame
    answer: Int[np.ndarray, "lane prompt"]
    kl: Float[np.ndarray, "lane prompt"]
    judged: pd.DataFrame

    @classmethod
    def of(
        cls,
        lanes: pd.DataFrame,
        outcomes: pd.DataFrame,
        answers: pd.DataFrame,
        prompts: pd.DataFrame,
        *,
        where: str,
    ) -> "Lanes":
        """Pivot the outcomes into matrices.

        Raises:
            UserError: An outcome names a lane, prompt or answer that is not there.
        """
        # Plain Python strings: they are compared thousands of times.
        names = [name for name in lanes if not is_numeric_dtype(lanes[name].dtype)]
        facts = lanes.astype(dict.fromkeys(names, object))
        facts = facts.sort_values("lane", kind="stable").reset_index(drop=True)
        judged = answers.sort_values("answer", kind="stable").reset_index(drop=True)
        rows = _places(facts["lane"], outcomes["lane"], f"{where}/outcomes.parquet: lane")
        said = _places(judged["answer"], outcomes["answer"], f"{where}/outcomes.parquet: answer")
        places = outcomes["prompt"].to_numpy(np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(prompts):
            raise UserError(
                f"{where}/outcomes.parquet: prompt {places.max()}; expected rows of "
                f"prompts.parquet, 0 to {len(prompts) - 1}; run the rule that makes it again"
            )
        answer = np.full((len(facts), len(prompts)), -1, dtype=np.int64)
        kl = np.full(answer.shape, np.nan)
        answer[rows, places] = said
        kl[rows, places] = outcomes["kl_first"].to_numpy(np.float64)
        return cls(facts, prompts.reset_index(drop=True), answer, kl, judged)

    def asked(self, **wanted: object) -> Int[np.ndarray, " prompt"]:
        """Columns of the questions whose facts equal all that is wanted."""
        return np.flatnonzero(_equal(self.prompts, wanted))

    def all_asked(
        self, rows: Int[np.ndarray, " lane"], columns: Int[np.ndarray, " prompt"]
    ) -> Int[np.ndarray, " kept"]:
        """Of some questions those that every one of some lanes answered."""
        return columns[(self.answer[np.ix_(rows, columns)] >= 0).all(axis=0)]

    def values(
        self, name: str, rows: Int[np.ndarray, " lane"], columns: Int[np.ndarray, " prompt"]
    ) -> Float[np.ndarray, "lane prompt"]:
        """One judged number, such as `code`, of some lanes and questions they were asked."""
        return self._numbers[name][self.answer[np.ix_(rows, columns)]]

    def plain(self, receiver: str, protocol: str) -> Int[np.ndarray, " one"]:
        """The lane of a receiver without an edit: of the same protocol where there is one."""
        found = self._plains.get((receiver, protocol), self._plains.get((receiver, "")))
        return np.array([] if found is None else [found], dtype=np.int64)

    @cached_property
    def _numbers(self) -> dict[str, Float[np.ndarray, " answer"]]:
        names = (*JUDGED, *NUMBERS, "first_token")
        return {name: self.judged[name].to_numpy(np.float64) for name in names}

    @cached_property
    def _plains(self) -> dict[tuple[str, str], int]:
        """First plain lane of each receiver, by protocol and, under "", of any."""
        found: dict[tuple[str, str], int] = {}
        for place in np.flatnonzero(_equal(self.facts, {"control": "plain"})).tolist():
            receiver, protocol = self.facts.loc[place, ["receiver", "protocol"]]
            found.setdefault((str(receiver), str(protocol)), place)
            found.setdefault((str(receiver), ""), place)
        return found

    @cached_property
    def clusters(self) -> np.ndarray:
        """Cluster of every question."""
        return self.prompts["cluster"].astype(str).to_numpy()

    def sample(self, columns: Int[np.ndarray, " prompt"], *, seed: int) -> ClusterRows:
        """Resamples of the clusters of some questions."""
        return ClusterRows.of(self.clusters[columns].tolist(), seed=seed)


@dataclass(frozen=True, eq=False)
class PairFiles:
    """What the stages left of one pair; None where a stage left no folder.

    Attributes:
        questions: A row a question: prompt_id, condition, category, cluster, split, kind.
        ladder: `ladder.csv`: the doses that were tried.
        answers: What every model answers without an edit.
        directions: Adapter -> mean shift from chat, by layer.
        states: Reads stored states of the questions, of `models`.
        missing: Stages without numbers.
        missed: What rows say where the pair's gate is missed, else empty.
    """

    pair: str
    questions: pd.DataFrame
    dose: pd.DataFrame | None
    ladder: pd.DataFrame | None
    answers: pd.DataFrame | None
    directions: Mapping[str, Float[np.ndarray, "layer d_model"]] | None
    states: StatesOf | None
    models: tuple[str, ...]
    steering: Lanes | None
    transfer: Lanes | None
    missing: tuple[str, ...]
    missed: str = ""

    @property
    def why(self) -> str:
        """What is not there, for the column of that name."""
        if self.missed:
            return self.missed
        return f"no {' and no '.join(self.missing)}" if self.missing else ""


def rows_where(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows whose columns equal what is wanted."""
    return frame.loc[_equal(frame, wanted)]


def _equal(frame: pd.DataFrame, wanted: Mapping[str, object]) -> Bool[np.ndarray, " row"]:
    keep = np.ones(len(frame), dtype=bool)
    for name, value in wanted.items():
        keep &= np.asarray(frame[name] == value)
    return keep


def _places(known: pd.Series, asked: pd.Series, what: str) -> Int[np.ndarray, " row"]:
    names, wanted = known.to_numpy(np.int64), asked.to_numpy(np.int64)
    places = np.searchsorted(names, wanted)
    found = places < len(names)
    found[found] = names[places[found]] == wanted[found]
    if not found.all():
        raise UserError(
            f"{what} {wanted[~found][0]} is not in its table; run the rule that makes it again"
        )
    return places


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

    @property
    def at_norm(self) -> bool:
        """Whether it is of equal norm and keeps its part along v."""
        return self.facts["norm_rule"] == "norm" and not self.facts["orthogonal"]

    @property
    def columns(self) -> dict[str, object]:
        """Its facts as columns of a table."""
        means = {"scale": self.scale, "cosine": self.cosine, "kl_select": self.kl_select}
        return {**self.facts, **means}

    def key(self, *without: str) -> tuple[object, ...]:
        """What tells it from other groups, but for some columns; an empty cell equals another."""
        kept = (value for name, value in self.facts.items() if name not in without)
        return tuple(None if value != value else value for value in kept)


@lru_cache(maxsize=2)  # the lanes of one pair, which four tables ask for
def groups_of(lanes: Lanes) -> tuple[Group, ...]:
    """The groups of all lanes, by first lane; a receiver without a plain lane is left out."""
    names = [name for name in KEYS if name in lanes.facts]
    matched = np.asarray(lanes.facts["status"] == "ok")
    means = {name: lanes.facts[name].to_numpy(np.float64) for name in _MEANS}
    by_key: Any = lanes.facts.groupby(names, dropna=False, sort=False).indices
    found: list[Group] = []
    for values, places in sorted(by_key.items(), key=lambda one: one[1][0]):
        facts: dict[str, object] = dict(zip(names, values, strict=True))
        plain = lanes.plain(str(facts["receiver"]), str(facts["protocol"]))
        if len(plain):
            found.append(_group(facts, np.asarray(places, dtype=np.int64), matched, means, plain))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Groups that were asked the same questions, `columns`; `sample` is of their clusters."""

    lanes: Lanes
    groups: tuple[Group, ...]
    columns: Int[np.ndarray, " prompt"]
    sample: ClusterRows

    def edited(self, name: str) -> Float[np.ndarray, "group prompt"]:
        """A judged number with the edit, mean over the lanes of each group; NaN where unknown."""
        rows = (self.lanes.values(name, group.rows, self.columns) for group in self.groups)
        return np.stack([known_means(values, axis=0) for values in rows])

    def plain(self, name: str) -> Float[np.ndarray, "group prompt"]:
        """The same without the edit."""
        rows = np.concatenate([group.plain for group in self.groups])
        return self.lanes.values(name, rows, self.columns)

    def means(self, edited: Sequence[str], *, plain: Sequence[str]) -> Rows:
        """Columns of known means of each group: `kl_first`, a number with and without the edit."""
        shares = {name: known_means(self.edited(name), axis=1) for name in edited}
        shares |= {f"{name}_plain": known_means(self.plain(name), axis=1) for name in plain}
        kl = (self.lanes.kl[np.ix_(group.rows, self.columns)] for group in self.groups)
        shares["kl_first"] = np.array([_known_mean(values) for values in kl])
        return [
            {name: float(values[at]) for name, values in shares.items()}
            for at in range(len(self.groups))
        ]

    def statuses(self) -> Rows:
        """Columns `status` and `why` of each group."""
        more = self.edited("degenerate").mean(axis=1) - self.plain("degenerate").mean(axis=1)
        return [_status(one, broken=bool(more[at] > BROKEN)) for at, one in enumerate(self.groups)]


def buckets(
    lanes: Lanes, groups: Sequence[Group], columns: Int[np.ndarray, " prompt"], *, seed: int
) -> list[Bucket]:
    """Sort groups by which of some questions all their lanes, and the plain one, were asked.

    A group that was asked none of the questions is left out.
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


def _group(
    facts: dict[str, object],
    rows: Int[np.ndarray, " lane"],
    matched: Bool[np.ndarray, " every"],
    means: Mapping[str, Float[np.ndarray, " every"]],
    plain: Int[np.ndarray, " one"],
) -> Group:
    reached = rows[matched[rows]]
    own = reached if len(reached) else rows
    group_means = {name: _known_mean(values[own]) for name, values in means.items()}
    if facts["control"] in ALL_NULLS:
        # Draws point both ways: a mean cosine of 0 would hide that they lie along v.
        sizes = np.abs(means["cosine"][own])
        group_means["cosine"] = (
            float(np.median(sizes)) if np.isfinite(sizes).all() else float("nan")
        )
    return Group(facts, own, len(rows), plain, 2 * len(reached) < len(rows), **group_means)


def _status(group: Group, *, broken: bool) -> dict[str, object]:
    matched = 0 if group.unmatched and len(group.rows) == group.asked else len(group.rows)
    reached = f"{matched} of {group.asked} lanes reach the KL of the direction"
    if group.unmatched:
        return {"status": "unmatched", "why": reached}
    if broken:
        return {"status": "broken", "why": "more than a tenth more answers are degenerate"}
    return {"status": "ok", "why": reached if len(group.rows) < group.asked else ""}


def chosen(lanes: Lanes, edits: Sequence[Group]) -> Group | None:
    """The edit of the chosen coefficient, by gain in repaired answers on select questions.

    None where no edit was asked one.
    """
    by_coeff = {float(str(one.facts["coeff"])): one for one in edits}
    gains = {coeff: select_gain(lanes, one) for coeff, one in by_coeff.items()}
    coeff = half_of_best(gains)
    return None if coeff is None else by_coeff[coeff]


def select_gain(lanes: Lanes, group: Group) -> float:
    """Mean change of repaired answers on non-code questions of split select; NaN without any."""
    columns = lanes.all_asked(
        np.concatenate([group.rows, group.plain]), lanes.asked(condition=NONCODE, split="select")
    )
    if not len(columns):
        return float("nan")
    edited, plain = (lanes.values("repaired", rows, columns) for rows in (group.rows, group.plain))
    return mean_gain(edited, plain)
