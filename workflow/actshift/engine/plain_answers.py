"""Questions in a model's chat template, and its greedy answers without an edit."""

from collections.abc import Sequence

import numpy as np

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of, warn_endless
from actshift.engine.intervene_plan import Asked, InterveneSettings, plan_batches
from actshift.hooks.lanes.generation import Continuation, generate_lanes
from actshift.models.load import LoadedModel
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt
from actshift.prompts.templates import Tokenizer

#: Most prompts a batch, whatever the budget.
_PROMPTS = 256


def encode_questions(
    loaded: LoadedModel, prompts: Sequence[Prompt], *, chat: Tokenizer | None = None
) -> list[Asked]:
    """Questions up to where answers begin, in the chat template of `chat` or the model's own."""
    lead = answer_lead(loaded.tokenizer, chat_tokenizer=chat)
    how = {"lead": lead, "chat_tokenizer": chat}
    encoded = (encode_to_answer(loaded.tokenizer, prompt.text, **how) for prompt in prompts)
    return [Asked(prompt, np.array(e.ids)) for prompt, e in zip(prompts, encoded, strict=True)]


def plain_answers(
    loaded: LoadedModel, asked: Sequence[Asked], *, max_new: int, token_budget: int
) -> list[Continuation]:
    """Greedy answers without an edit, in the order of the questions.

    `token_budget` is the most padded tokens a batch, `max_new` the longest answer.
    """
    settings = InterveneSettings(
        max_new=max_new, token_budget=token_budget, prompts_a_batch=_PROMPTS
    )
    decoder = decoder_of(loaded)
    by_place: dict[int, Continuation] = {}
    for batch in plan_batches([len(question.ids) for question in asked], 1, settings):
        ids = [asked[place].ids for place in batch.prompts]
        generated = generate_lanes(decoder, ids, [Lane("plain")], max_new=max_new)
        by_place |= zip(batch.prompts, generated.answers[0], strict=True)
    answers = [by_place[place] for place in range(len(asked))]
    warn_endless(
        [question.prompt.condition for question in asked],
        [answer.ended for answer in answers],
        model=loaded.name,
        max_new=max_new,
    )
    return answers
