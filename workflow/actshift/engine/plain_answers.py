"""Questions in a model's chat template, and its greedy answers without an edit."""

from collections.abc import Sequence

import numpy as np

from actshift.edits import Lane
from actshift.engine.eos import warn_endless
from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked, InterveneSettings, plan_batches
from actshift.hooks.lanes.generation import Continuation, generate_lanes
from actshift.models.load import LoadedModel
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt

#: Most prompts a batch, whatever the budget.
_PROMPTS = 256


def encode_questions(loaded: LoadedModel, prompts: Sequence[Prompt]) -> list[Asked]:
    """Questions in the model's chat template up to where answers begin, in the order given.

    Args:
        loaded: Whose tokenizer and template.
        prompts: The questions.
    """
    lead = answer_lead(loaded.tokenizer)
    return [
        Asked(one, np.array(encode_to_answer(loaded.tokenizer, one.text, lead=lead).ids))
        for one in prompts
    ]


def plain_answers(
    loaded: LoadedModel, asked: Sequence[Asked], *, max_new: int, token_budget: int
) -> list[Continuation]:
    """Greedy answers without an edit, in the order of the questions.

    Args:
        loaded: The model.
        asked: The questions.
        max_new: Longest answer, tokens.
        token_budget: Most padded tokens a batch.
    """
    settings = InterveneSettings(
        max_new=max_new, token_budget=token_budget, prompts_a_batch=_PROMPTS
    )
    decoder = decoder_of(loaded)
    found: dict[int, Continuation] = {}
    for batch in plan_batches([len(one.ids) for one in asked], 1, settings):
        ids = [asked[place].ids for place in batch.prompts]
        said = generate_lanes(decoder, ids, [Lane("plain")], max_new=max_new)
        found |= zip(batch.prompts, said.answers[0], strict=True)
    answers = [found[place] for place in range(len(asked))]
    warn_endless(
        [one.prompt.condition for one in asked],
        [one.ended for one in answers],
        model=loaded.name,
        max_new=max_new,
    )
    return answers
