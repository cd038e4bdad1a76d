"""Answers under edits of the first token alone: many directions, few distinct continuations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked
from actshift.hooks.lanes.final_edit import (
    FirstTokens,
    biased_first_tokens,
    continue_from,
    final_states,
    first_tokens,
    mean_bias,
    plain_logits,
)
from actshift.hooks.lanes.generation import Continuation
from actshift.models.load import LoadedModel


@dataclass(frozen=True)
class DistinctAnswers:
    """Distinct answers with the place of their prompt, and the place in `answers` of every row."""

    number: Int[np.ndarray, " row"]
    answers: list[tuple[int, Continuation]]


class FirstTokenEdits:
    """A model and its prompts, and the answers that follow any first token."""

    def __init__(
        self, receiver: LoadedModel, asked: Sequence[Asked], *, max_new: int, token_budget: int
    ) -> None:
        """Read the prompts once; `token_budget` is the most padded tokens a pass."""
        self._decoder = decoder_of(receiver)
        self._causal = self._decoder.causal
        self._ids = [question.ids for question in asked]
        self._sizes = {"max_new": max_new, "token_budget": token_budget}
        self._states = final_states(self._causal, self._ids, token_budget=token_budget)

    def first(
        self, vectors: Float[np.ndarray, "lane d_model"], places: Sequence[int]
    ) -> FirstTokens:
        """First tokens of the prompts at some places when vectors are subtracted."""
        return first_tokens(self._causal, self._states[list(places)], vectors)

    def plain(self, places: Sequence[int]) -> Float[np.ndarray, "prompt vocab"]:
        """Logits of the first token of the prompts at some places, without an edit."""
        return plain_logits(self._causal, self._states[list(places)])

    def bias(
        self, vectors: Float[np.ndarray, "lane d_model"], places: Sequence[int]
    ) -> Float[np.ndarray, "lane vocab"]:
        """Mean change of the first token's logits over the prompts at some places."""
        return mean_bias(self._causal, self._states[list(places)], vectors)

    def biased(self, biases: Float[np.ndarray, "lane vocab"], places: Sequence[int]) -> FirstTokens:
        """First tokens of the prompts at some places when biases are added to their logits."""
        return biased_first_tokens(self._causal, self._states[list(places)], biases)

    def continued(
        self, prompt: Int[np.ndarray, " row"], token: Int[np.ndarray, " row"]
    ) -> DistinctAnswers:
        """Answers that begin with given first tokens; every distinct (prompt, token) runs once.

        Args:
            prompt: Place of the prompt of every row.
            token: First token of every row.
        """
        # One key a row sorts many times faster than pairs.
        keys = (prompt.astype(np.int64) << 32) | token.astype(np.int64)
        distinct, number = np.unique(keys, return_inverse=True)
        pairs = [(int(key >> 32), int(key & 0xFFFFFFFF)) for key in distinct]
        continuations = continue_from(self._decoder, self._ids, pairs, **self._sizes)
        answers = [(place, answer) for (place, _), answer in zip(pairs, continuations, strict=True)]
        return DistinctAnswers(number.astype(np.int32), answers)
