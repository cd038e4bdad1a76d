"""What the tables are made from: lanes and answers of one pair, as arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pandas.api.types import is_numeric_dtype

from actshift.errors import UserError
from actshift.maths.cluster_rows import ClusterRows

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

        Args:
            lanes: `lanes.parquet`.
            outcomes: `outcomes.parquet`: lane, prompt, answer, kl_first.
            answers: `answers.parquet`.
            prompts: `prompts.parquet`.
            where: Folder, for messages.

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

    def where(self, **wanted: object) -> Int[np.ndarray, " lane"]:
        """Rows of the lanes whose facts equal all that is wanted; a tuple offers a choice."""
        keep = np.ones(len(self.facts), dtype=bool)
        for name, value in wanted.items():
            given = self.facts[name]
            keep &= np.asarray(given.isin(value) if isinstance(value, tuple) else given == value)
        return np.flatnonzero(keep)

    def asked(self, **wanted: object) -> Int[np.ndarray, " prompt"]:
        """Columns of the questions whose facts equal all that is wanted."""
        keep = np.ones(len(self.prompts), dtype=bool)
        for name, value in wanted.items():
            keep &= np.asarray(self.prompts[name] == value)
        return np.flatnonzero(keep)

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
        for place in self.where(control="plain").tolist():
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
        pair: Name.
        questions: A row a question: prompt_id, condition, category, cluster, split, kind.
        dose: `dose.csv` of its adapters.
        ladder: `ladder.csv`: the doses that were tried.
        answers: What every model answers without an edit.
        directions: Adapter -> mean shift from chat, by layer.
        states: Reads stored states of the questions.
        models: Models that have states.
        steering: Lanes within the model.
        transfer: Lanes of other models' directions.
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
    """Rows whose columns equal what is wanted.

    Args:
        frame: Any rows.
        wanted: Column -> value.
    """
    keep: Bool[np.ndarray, " row"] = np.ones(len(frame), dtype=bool)
    for name, value in wanted.items():
        keep &= np.asarray(frame[name] == value)
    return frame.loc[keep]


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
