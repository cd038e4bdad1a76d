"""Lanes of the first token on one model: first tokens lane by lane, then all answers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int

from actshift.models.load import LoadedModel
from actshift.prompts.records import Prompt
from actshift.stages.answer_book import AnswerBook
from actshift.stages.first_token import FirstTokenEdits
from actshift.stages.spillover import encode_questions
from actshift.studies.misalignment.choose import equal_kl
from actshift.studies.misalignment.kinds import NONCODE
from actshift.studies.misalignment.lanes import AskedOf, Planned, at_equal_kl
from actshift.zoo.questions import kind_of

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
    """A model that is edited, its questions, and what lanes did to it so far.

    Attributes:
        untuned: The chat model: its tokenizer reads, and answers are scored under it.
        edited: The model that is edited.
        prompts: Questions of the splits select and heldout.
        judging: Language, refusal marks and guards of the answer book.
        settings: Fields of the config's `misalignment`.
        lanes: All lanes so far, in order.
    """

    untuned: LoadedModel
    edited: LoadedModel
    prompts: Sequence[Prompt]
    judging: Mapping[str, Any]
    settings: Mapping[str, Any]
    lanes: list[Planned] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the questions once."""
        self._asked = encode_questions(self.untuned, self.prompts)
        self._budget: int = self.settings["token_budget"]
        self._edits = FirstTokenEdits(
            self.edited, self._asked, max_new=self.settings["max_new"], token_budget=self._budget
        )
        split = np.array([one.split for one in self.prompts])
        noncode = np.array([one.condition == NONCODE for one in self.prompts])
        self._places: dict[AskedOf, list[int]] = {
            "both": list(range(len(split))),
            "heldout": np.flatnonzero(split == "heldout").tolist(),
        }
        self._choosing: list[int] = np.flatnonzero((split == "select") & noncode).tolist()

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
            places = self._places[asked]
            first = self._edits.first(np.stack([o.subtracted for o in planned])[ok], places)
            self._parts.append(_Part(numbers[ok], places, first.tokens, first.kl))
            if asked == "both":
                chosen = np.isin(places, self._choosing)
                nats = first.kl[:, chosen].mean(axis=1, dtype=np.float64)
                found = [
                    replace(one, facts=replace(one.facts, kl_select=float(kl)))
                    for one, kl in zip(planned, nats, strict=True)
                ]
        self.lanes += found
        return found

    def at_equal_kl(
        self, planned: Sequence[Planned], targets: Float[np.ndarray, " lane"]
    ) -> list[Planned]:
        """Lanes of equal norm at the scale where their KL on select questions is the target.

        Args:
            planned: The lanes.
            targets: Nats, of each.
        """
        vectors = np.stack([one.subtracted for one in planned])

        def divergence(scale: Float[np.ndarray, " lane"]) -> Float[np.ndarray, " lane"]:
            scaled = (vectors * scale[:, None]).astype(np.float32)
            return self._edits.first(scaled, self._choosing).kl.mean(axis=1, dtype=np.float64)

        found = equal_kl(
            divergence,
            targets,
            [self.prompts[place] for place in self._choosing],
            max_scale=self.settings["max_scale"],
        )
        return at_equal_kl(planned, found.scale, found.kl, found.matched.tolist())

    def tables(self) -> dict[str, pa.Table]:
        """The four files: lanes, outcomes, prompts and answers."""
        lanes = pd.DataFrame([vars(one.facts) for one in self.lanes])
        lanes.insert(0, "lane", np.arange(len(lanes), dtype=np.int32))
        prompts = pd.DataFrame(
            [
                {
                    "prompt_id": one.id,
                    **{key: getattr(one, key) for key in _ABOUT},
                    "kind": kind_of(one),
                }
                for one in self.prompts
            ]
        )
        outcomes, book = self._answered()
        answers = book.judged().drop(columns="ended")
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

    def _answered(self) -> tuple[pa.Table, AnswerBook]:
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
        book = AnswerBook(self.untuned, self._asked, token_budget=self._budget, **self.judging)
        entered = [book.add(place, one.tokens, one.ended) for place, one in said.answers]
        answer = np.array(entered, dtype=np.int32)[said.number][number]
        kl = np.concatenate([part.kl.ravel() for part in self._parts])
        columns = dict(zip(_OUTCOME, (lane, prompt, answer, kl), strict=True))
        return pa.table(columns), book


_ABOUT = ("condition", "category", "cluster", "split")
