"""Answer book: distinct answers to a fixed set of questions, each judged and scored once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked
from actshift.hooks.lanes.losses import Answer, answer_nats
from actshift.models.load import LoadedModel
from actshift.studies.misalignment.outcomes import ANSWER, Guards, Said, judge_answers
from actshift.zoo.language import Language

#: Columns of `AnswerBook.judged`: which answer, to which question, and how it was said.
BOOK = ("answer", "prompt", "first_token", "ended", *ANSWER)
#: `first_token` of an answer that ended at once.
NO_TOKEN = -1


@dataclass(frozen=True)
class _Entry:
    prompt: int
    tokens: tuple[int, ...]
    ended: bool


class AnswerBook:
    """Answers by (question, tokens): many lanes say the same, so they are looked at once."""

    def __init__(
        self,
        untuned: LoadedModel,
        asked: Sequence[Asked],
        *,
        lang: Language | None,
        refusal_phrases: tuple[str, ...],
        guards: Guards,
        token_budget: int,
    ) -> None:
        """Begin an empty book.

        Args:
            untuned: The chat model, under which answers are scored and whose tokenizer reads them.
            asked: The questions; answers name them by their place.
            lang: The zoo's language; None for models that do not speak it.
            refusal_phrases: Keywords of a refusal.
            guards: What is broken.
            token_budget: Most padded tokens a batch of scoring.
        """
        self._untuned = untuned
        self._asked = asked
        self._judging: dict[str, Any] = {
            "lang": lang,
            "refusal_phrases": refusal_phrases,
            "guards": guards,
        }
        self._budget = token_budget
        self._entries: dict[_Entry, int] = {}
        self._parts: list[pd.DataFrame] = []
        self._done = 0

    def __len__(self) -> int:
        """How many distinct answers there are."""
        return len(self._entries)

    def add(self, prompt: int, tokens: tuple[int, ...], ended: bool) -> int:
        """Enter an answer, if it is new.

        Args:
            prompt: Place of its question.
            tokens: Its ids, without the end token.
            ended: Whether an end token came.

        Returns:
            Its number in the book, from 0 in the order of entry.
        """
        return self._entries.setdefault(_Entry(prompt, tokens, ended), len(self._entries))

    def judged(self) -> pd.DataFrame:
        """Every answer so far; only those are judged that came since the last call.

        Returns:
            Columns `BOOK`, by number of the answer; `first_token` is -1 where the end came first.
        """
        new = list(self._entries)[self._done :]
        if new:
            self._parts.append(self._judge(new))
            self._done = len(self._entries)
        return pd.concat(self._parts, ignore_index=True) if self._parts else self._judge([])

    def _judge(self, new: Sequence[_Entry]) -> pd.DataFrame:
        nats = answer_nats(
            decoder_of(self._untuned),
            [Answer(self._asked[one.prompt].ids, one.tokens, one.ended) for one in new],
            token_budget=self._budget,
        )
        said = [
            Said(self._asked[one.prompt].prompt, self._text(one.tokens), one.tokens, float(cost))
            for one, cost in zip(new, nats, strict=True)
        ]
        judged = judge_answers(said, **self._judging)
        first = [one.tokens[0] if one.tokens else NO_TOKEN for one in new]
        columns: dict[str, Any] = {
            "answer": np.arange(self._done, self._done + len(new), dtype=np.int32),
            "prompt": np.array([one.prompt for one in new], dtype=np.int16),
            "first_token": np.array(first, dtype=np.int32),
            "ended": np.array([one.ended for one in new], dtype=bool),
        }
        return judged.assign(**columns)[list(BOOK)]

    def _text(self, tokens: tuple[int, ...]) -> str:
        text: Any = self._untuned.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()
