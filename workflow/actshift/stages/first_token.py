"""Answers under edits of the first token alone: many directions, few distinct continuations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from actshift.hooks.final_edit import (
    FirstTokens,
    biased_first_tokens,
    continue_from,
    final_states,
    first_tokens,
    mean_bias,
)
from actshift.hooks.lanes import Continuation
from actshift.models.load import LoadedModel
from actshift.stages.causal import take_apart
from actshift.stages.intervene import decoder_of
from actshift.stages.intervene_plan import Asked


@runtime_checkable
class Answers(Protocol):
    """Where answers go."""

    def add(self, prompt: int, tokens: tuple[int, ...], ended: bool) -> int:
        """Number of the distinct answer."""
        ...


@dataclass(frozen=True)
class FirstTokenAnswers:
    """Distinct answers, and which of them every prompt gets in every lane.

    Attributes:
        answer: Number in `said`, `[lane, prompt]`.
        kl: KL(plain || edited) of the first token, nats, `[lane, prompt]`.
        said: Place of the prompt in `asked`, and its answer.
    """

    answer: Int[np.ndarray, "lane prompt"]
    kl: Float[np.ndarray, "lane prompt"]
    said: list[tuple[int, Continuation]]


class FirstTokenEdits:
    """One model, the prompts it is asked, and what it says after any first token."""

    def __init__(
        self, receiver: LoadedModel, asked: Sequence[Asked], *, max_new: int, token_budget: int
    ) -> None:
        """Read the prompts once.

        Args:
            receiver: The model.
            asked: The prompts.
            max_new: Most new tokens of an answer.
            token_budget: Most padded tokens a pass.
        """
        self._causal = take_apart(receiver.model)
        self._decoder = decoder_of(receiver)
        self._ids = [one.ids for one in asked]
        self._sizes = {"max_new": max_new, "token_budget": token_budget}
        self._states = final_states(self._causal, self._ids, token_budget=token_budget)
        self._said: dict[tuple[int, int], Continuation] = {}

    def first(
        self, vectors: Float[np.ndarray, "lane d_model"], places: Sequence[int]
    ) -> FirstTokens:
        """First tokens of the prompts at some places when vectors are subtracted."""
        return first_tokens(self._causal, self._states[list(places)], vectors)

    def bias(
        self, vectors: Float[np.ndarray, "lane d_model"], places: Sequence[int]
    ) -> Float[np.ndarray, "lane vocab"]:
        """Mean change of the first token's logits over the prompts at some places."""
        return mean_bias(self._causal, self._states[list(places)], vectors)

    def biased(self, biases: Float[np.ndarray, "lane vocab"], places: Sequence[int]) -> FirstTokens:
        """First tokens of the prompts at some places when biases are added to their logits."""
        return biased_first_tokens(self._causal, self._states[list(places)], biases)

    def answers(self, first: FirstTokens, places: Sequence[int]) -> FirstTokenAnswers:
        """Continue every distinct (prompt, first token) that was not met before.

        Args:
            first: First tokens, prompts in the order of the places.
            places: Of the prompts.
        """
        prompts = np.asarray(places, dtype=np.int64)
        rows = np.stack([np.broadcast_to(prompts, first.tokens.shape), first.tokens])
        distinct, number = np.unique(rows.reshape(2, -1), axis=1, return_inverse=True)
        pairs = [(int(prompt), int(token)) for prompt, token in distinct.T]
        new = [pair for pair in pairs if pair not in self._said]
        found = continue_from(self._decoder, self._ids, new, **self._sizes)
        self._said |= dict(zip(new, found, strict=True))
        said = [(pair[0], self._said[pair]) for pair in pairs]
        answer = number.reshape(first.tokens.shape).astype(np.int32)
        return FirstTokenAnswers(answer, first.kl, said)


def run_first_token(
    receiver: LoadedModel,
    asked: Sequence[Asked],
    vectors: Float[np.ndarray, "lane d_model"],
    book: Answers,
    *,
    max_new: int,
    token_budget: int,
    places: Sequence[int] | None = None,
) -> tuple[Int[np.ndarray, "lane prompt"], Float[np.ndarray, "lane prompt"]]:
    """Answers when vectors are subtracted at the last block's output on the last prompt token.

    Args:
        receiver: The model that is edited.
        asked: The prompts, in the order the book knows them by.
        vectors: What each lane subtracts, coefficient included.
        book: Gets every distinct answer once.
        max_new: Most new tokens of an answer.
        token_budget: Most padded tokens a pass.
        places: Which prompts are asked; None is all.

    Returns:
        Numbers of the answers in the book, int32, and KL(plain || edited) of the first token in
        nats, float32; prompts in the order of `places`.
    """
    chosen = range(len(asked)) if places is None else places
    edits = FirstTokenEdits(receiver, asked, max_new=max_new, token_budget=token_budget)
    found = edits.answers(edits.first(vectors, chosen), chosen)
    return book_answers(found, book), found.kl


def book_answers(found: FirstTokenAnswers, book: Answers) -> Int[np.ndarray, "lane prompt"]:
    """Enter the distinct answers into the book, and return their numbers there."""
    numbers = [book.add(prompt, one.tokens, one.ended) for prompt, one in found.said]
    return np.array(numbers, dtype=np.int32)[found.answer]
