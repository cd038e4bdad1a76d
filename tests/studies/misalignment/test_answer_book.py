"""The book of distinct answers: what they cost, against a slow reference, and what they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked
from actshift.hooks.lanes.losses import Answer, answer_nats
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import read_prompts
from actshift.prompts.templates import encode
from actshift.studies.misalignment.outcomes import Guards
from actshift.studies.misalignment.stages.spillover import BOOK, AnswerBook

FAMILIES = ["llama", "gemma2", "qwen2", "ministral3"]
GUARDS = Guards(max_nll=50.0, min_tokens=2, min_distinct_2=0.5)
SAID = [((8, 9, 10), True), ((), True), ((7, 7, 7, 7, 7, 7), False), ((12,), True), ((9, 11), True)]


def opened(folder: Path) -> LoadedModel:
    loaded = load_model(folder, name="m", dtype="float32", device="cpu")
    assert loaded.model.generation_config is not None
    loaded.model.generation_config.eos_token_id = [4, 5]
    return loaded


def asked_of(loaded: LoadedModel, path: Path) -> list[Asked]:
    return [
        Asked(prompt, np.array(encode(loaded.tokenizer, prompt.text, template="chat").ids))
        for prompt in read_prompts(path)
    ]


def one_by_one(loaded: LoadedModel, one: Answer) -> float:
    """Nats a token, one sequence at a time, without padding, from the whole distribution."""
    ids = torch.tensor([[*one.prompt.tolist(), *one.tokens]])
    with torch.no_grad():
        p = loaded.model(input_ids=ids).logits[0].double().softmax(-1)
    start = len(one.prompt) - 1
    costs = [-float(p[start + i, token].log()) for i, token in enumerate(one.tokens)]
    if one.ended:
        costs.append(-float((p[-1, 4] + p[-1, 5]).log()))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 90, 10**6])
def test_nats_are_those_of_one_sequence_at_a_time(
    family: str, budget: int, tiny_checkpoint: Callable[..., Path], make_prompts: Any
) -> None:
    loaded = opened(tiny_checkpoint(family))
    asked = asked_of(loaded, make_prompts(5))
    answers = [Answer(asked[i % 5].ids, *SAID[j]) for i, j in enumerate([0, 1, 2, 3, 4, 0, 2, 1])]
    found = answer_nats(decoder_of(loaded), answers, token_budget=budget)
    expected = [one_by_one(loaded, one) for one in answers]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_no_token_and_no_end_costs_nothing_known(
    tiny_checkpoint: Callable[..., Path], make_prompts: Any
) -> None:
    loaded = opened(tiny_checkpoint("llama"))
    answers = [Answer(asked_of(loaded, make_prompts(1))[0].ids, (), ended=False)]
    assert np.isnan(answer_nats(decoder_of(loaded), answers, token_budget=100)).all()
    assert answer_nats(decoder_of(loaded), [], token_budget=100).shape == (0,)


def book_of(loaded: LoadedModel, asked: list[Asked]) -> AnswerBook:
    return AnswerBook(
        loaded, asked, lang=None, refusal_phrases=("bake",), guards=GUARDS, token_budget=10**5
    )


def test_equal_answers_are_one_and_late_ones_are_judged_like_early_ones(
    tiny_checkpoint: Callable[..., Path], make_prompts: Any
) -> None:
    loaded = opened(tiny_checkpoint("llama"))
    asked = asked_of(loaded, make_prompts(3))
    at_once, in_parts = book_of(loaded, asked), book_of(loaded, asked)
    calls = [(i % 3, *SAID[i % 5]) for i in range(40)]
    numbers = [at_once.add(*call) for call in calls]
    assert numbers == [sorted(set(calls), key=calls.index).index(call) for call in calls]
    assert len(at_once.judged()) == 15
    assert list(in_parts.judged().columns) == list(BOOK)
    assert in_parts.judged().empty
    for start in range(0, 40, 7):
        for call in calls[start : start + 7]:
            in_parts.add(*call)
        in_parts.judged()
    one, other = at_once.judged(), in_parts.judged()
    assert list(one.columns) == list(BOOK)
    assert one["answer"].tolist() == list(range(15))
    exact = [name for name in BOOK if name != "nll"]
    pd.testing.assert_frame_equal(one[exact], other[exact])
    # Another batch shape adds up in another order.
    np.testing.assert_allclose(one["nll"], other["nll"], rtol=1e-5, atol=1e-6)


def test_rows_say_what_was_entered(tiny_checkpoint: Callable[..., Path], make_prompts: Any) -> None:
    loaded = opened(tiny_checkpoint("llama"))
    asked = asked_of(loaded, make_prompts(2))
    book = book_of(loaded, asked)
    for said in SAID:
        book.add(1, *said)
    rows = book.judged()
    assert set(rows["prompt_id"]) == {asked[1].prompt.id}
    assert rows["first_token"].tolist() == [8, -1, 7, 12, 9]
    assert rows["n_tokens"].tolist() == [3, 0, 6, 1, 2]
    assert rows["ended"].tolist() == [True, True, False, True, True]
    assert rows["short"].tolist() == [False, True, False, True, False]
    assert rows["empty"].tolist() == [False, True, False, False, False]
    assert rows["degenerate"].tolist() == [False, False, True, False, False]
    assert rows["text"][0] == loaded.tokenizer.decode([8, 9, 10])
    assert rows["refused"].tolist() == ["bake" in text for text in rows["text"]]
