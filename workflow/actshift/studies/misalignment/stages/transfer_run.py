"""Lanes of the first token on one model: first tokens lane by lane, then all answers at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from actshift.engine.first_token import FirstTokenEdits
from actshift.studies.misalignment.choose import chosen_coeff, equal_kl
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.lanes import at_equal_kl
from actshift.studies.misalignment.material import Planned
from actshift.studies.misalignment.outcomes import question_row
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair
from actshift.studies.misalignment.transfer_lanes import PRIMARY, fit_on_of

_OUTCOME = ("lane", "prompt", "answer", "kl_first")


@dataclass(frozen=True, eq=False)
class _Part:
    """First tokens of lanes that were asked the same questions."""

    lane: Int[np.ndarray, " lane"]
    places: list[int]
    tokens: Int[np.ndarray, "lane prompt"]
    kl: Float[np.ndarray, "lane prompt"]


@dataclass(eq=False)
class LaneRun:
    """The insecure adapter of a pair, and what lanes did to it so far.

    Attributes:
        pair: The pair: its models, questions and answer book.
        lanes: All lanes so far, in order.
    """

    pair: SteeredPair
    lanes: list[Planned] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)

    @cached_property
    def _edits(self) -> FirstTokenEdits:
        """The adapter with its states of all questions."""
        settings = self.pair.settings
        return FirstTokenEdits(
            self.pair.load(INSECURE),
            self.pair.asked,
            max_new=settings.max_new,
            token_budget=settings.token_budget,
        )

    def ask(self, planned: Sequence[Planned]) -> list[Planned]:
        """Ask lanes their questions; unmatched ones are kept and asked nothing.

        Args:
            planned: The lanes, all asked of the same splits.

        Returns:
            The lanes, their mean KL on select questions filled in where those were asked.
        """
        numbers = len(self.lanes) + np.arange(len(planned), dtype=np.int32)
        ok = [one.facts.status == "ok" for one in planned]
        found = list(planned)
        if any(ok):
            asked = planned[0].asked
            places = self.pair.questions.of[asked]
            first = self._edits.first(np.stack([o.subtracted for o in planned])[ok], places)
            self._parts.append(_Part(numbers[ok], places, first.tokens, first.kl))
            if asked == "both":
                chosen = np.isin(places, self.pair.questions.choosing)
                nats = first.kl[:, chosen].mean(axis=1, dtype=np.float64)
                found = [
                    replace(one, facts=replace(one.facts, kl_select=float(kl)))
                    for one, kl in zip(planned, nats, strict=True)
                ]
        self.lanes += found
        return found

    def chosen_coeff(self, donor: str) -> float:
        """The coefficient of a donor's mapped v, by the map of `PRIMARY`, chosen on select."""
        mine = {
            one.facts.coeff: lane
            for lane, one in enumerate(self.lanes)
            if (one.facts.donor, one.facts.control) == (donor, "mapped")
            and fit_on_of(one.facts) == PRIMARY
        }
        plain = next(i for i, one in enumerate(self.lanes) if one.facts.control == "plain")
        prompts = [self.pair.asked[place].prompt for place in self.pair.questions.choosing]
        repaired = self._repaired([plain, *mine.values()])
        return chosen_coeff(dict(zip(mine, repaired[1:], strict=True)), repaired[0], prompts)

    def _repaired(self, lanes: Sequence[int]) -> Bool[np.ndarray, "lane prompt"]:
        """Whether the answers of lanes to the choosing questions are repaired."""
        places = self.pair.questions.choosing
        tokens = np.stack([self._first(lane, places) for lane in lanes])
        prompt = np.tile(np.array(places), len(lanes))
        said = self._edits.continued(prompt, tokens.ravel())
        entered = [self.pair.book.add(p, one.tokens, one.ended) for p, one in said.answers]
        repaired = self.pair.book.judged()["repaired"].to_numpy(dtype=bool)
        return repaired[np.array(entered)[said.number]].reshape(tokens.shape)

    def _first(self, lane: int, places: Sequence[int]) -> Int[np.ndarray, " prompt"]:
        """First tokens of a lane."""
        part = next(one for one in self._parts if lane in one.lane)
        row = int(np.flatnonzero(part.lane == lane)[0])
        return part.tokens[row, [part.places.index(place) for place in places]]

    def at_equal_kl(
        self, planned: Sequence[Planned], targets: Float[np.ndarray, " lane"]
    ) -> list[Planned]:
        """Lanes of equal norm at the scale where their KL on select questions is the target.

        Args:
            planned: The lanes.
            targets: Nats, of each.
        """
        vectors = np.stack([one.subtracted for one in planned])

        def divergence(
            places: Int[np.ndarray, " open"], scale: Float[np.ndarray, " open"]
        ) -> Float[np.ndarray, " open"]:
            scaled = (vectors[places] * scale[:, None]).astype(np.float32)
            return self._edits.first(scaled, self.pair.questions.choosing).kl.mean(
                axis=1, dtype=np.float64
            )

        found = equal_kl(
            divergence,
            targets,
            [self.pair.asked[place].prompt for place in self.pair.questions.choosing],
            max_scale=self.pair.settings.max_scale,
        )
        return at_equal_kl(planned, found.scale, found.kl, found.matched.tolist())

    def tables(self) -> dict[str, pa.Table]:
        """The four files: lanes, outcomes, prompts and answers."""
        lanes = pd.DataFrame([vars(one.facts) for one in self.lanes])
        lanes.insert(0, "lane", np.arange(len(lanes), dtype=np.int32))
        prompts = pd.DataFrame([question_row(one.prompt) for one in self.pair.asked])
        outcomes = self._answered()
        answers = self.pair.book.judged().drop(columns="ended")
        tables = {
            "lanes": lanes.astype({"layer": np.int32, "draw": np.int32}),
            "prompts": prompts,
            "answers": answers,
        }
        plain = {
            name: pa.Table.from_pandas(one, preserve_index=False) for name, one in tables.items()
        }
        return {
            name: one.replace_schema_metadata(None)
            for name, one in {**plain, "outcomes": outcomes}.items()
        }

    def _answered(self) -> pa.Table:
        """Continue every distinct (question, first token) once, and enter what is said."""
        tokens = np.concatenate([part.tokens.ravel() for part in self._parts])
        prompt = np.concatenate(
            [np.tile(np.array(part.places, np.int16), len(part.lane)) for part in self._parts]
        )
        lane = np.concatenate([np.repeat(part.lane, len(part.places)) for part in self._parts])
        # One key a row sorts many times faster than pairs.
        keys, number = np.unique(
            (prompt.astype(np.int64) << 32) | tokens.astype(np.int64), return_inverse=True
        )
        said = self._edits.continued(keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32))
        entered = [self.pair.book.add(place, one.tokens, one.ended) for place, one in said.answers]
        answer = np.array(entered, dtype=np.int32)[said.number][number]
        kl = np.concatenate([part.kl.ravel() for part in self._parts])
        columns = dict(zip(_OUTCOME, (lane, prompt, answer, kl), strict=True))
        return pa.table(columns)
