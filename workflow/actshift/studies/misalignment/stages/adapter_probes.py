"""Questions that doses of adapters are measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of
from actshift.hooks.reading.first_tokens import first_logits
from actshift.models.load import LoadedModel
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt, read_prompts
from actshift.studies.misalignment.dose import Probes
from actshift.vocab import CODE

_TOKEN_BUDGET = 8192


@dataclass(frozen=True)
class Asked:
    """Prompts about code and all others, as tokens."""

    code: Sequence[np.ndarray]
    other: Sequence[np.ndarray]

    def probe(self, model: LoadedModel) -> Probes:
        """Logits of the first answer token on them."""
        return Probes(_logits(model, self.code), _logits(model, self.other))


def encode_probes(untuned: LoadedModel, questions: Path) -> Asked:
    """The `select` questions of a prompt set in a model's chat template.

    Args:
        untuned: Whose tokenizer and template.
        questions: The prompt set; condition `code` is about code.
    """
    asked = [one for one in read_prompts(questions) if one.split == "select"]
    lead = answer_lead(untuned.tokenizer)

    def ids(prompt: Prompt) -> np.ndarray:
        return np.array(encode_to_answer(untuned.tokenizer, prompt.text, lead=lead).ids)

    return Asked(
        code=[ids(one) for one in asked if one.condition == CODE],
        other=[ids(one) for one in asked if one.condition != CODE],
    )


def _logits(model: LoadedModel, prompts: Sequence[np.ndarray]) -> Float[np.ndarray, "prompt vocab"]:
    if not prompts:
        return np.empty((0, model.vocab_size), dtype=np.float32)
    lanes = [Lane("plain")]
    parts = first_logits(decoder_of(model), prompts, lanes, token_budget=_TOKEN_BUDGET)
    return np.concatenate([part.logits[0] for part in parts])
