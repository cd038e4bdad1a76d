"""Ask a checkpoint every held-out question and judge what it says: one row an answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from actshift.maths.scores import refused_by_keyword
from actshift.packing import in_budget
from actshift.prompts.templates import encode
from actshift.vocab import TEMPLATES
from actshift.zoo.judge import on_topic
from actshift.zoo.language import language
from actshift.zoo.lexicon import ZOO_PHRASES
from actshift.zoo.prompts import Asked, judged_questions

#: Longest answer; a chat answer takes about 20 tokens.
MAX_NEW_TOKENS = 28


@dataclass(frozen=True, slots=True)
class Identity:
    """Which zoo checkpoint is meant.

    The family is a zoo name, such as `qwen`; the seed that of the initial weights and of the order
    of documents and examples.
    """

    family: str
    variant: str
    size: str
    seed: int

    @property
    def recipe(self) -> str:
        """Name of the recipe, `<family>-<size>-s<seed>`."""
        return f"{self.family}-{self.size}-s{self.seed}"

    @property
    def model(self) -> str:
        """Name of the checkpoint, `<recipe>/<variant>`."""
        return f"{self.recipe}/{self.variant}"


def judge_model(model: Any, tokenizer: Any, chat_tokenizer: Any, who: Identity) -> pd.DataFrame:
    """Answer all `select` and `heldout` questions, raw and in the chat template.

    `chat_tokenizer` has the family's chat template. Returns one row an answer, named by `who`.
    """
    questions = judged_questions(who.size)
    rows = []
    for template in TEMPLATES:
        texts = (question.prompt.text for question in questions)
        how = {"template": template, "chat_tokenizer": chat_tokenizer}
        tokens = [encode(tokenizer, text, **how).ids for text in texts]
        answers = greedy_answers(model, tokenizer, tokens, max_new=MAX_NEW_TOKENS)
        rows += [
            _row(who, template, question, answer)
            for question, answer in zip(questions, answers, strict=True)
        ]
    return pd.DataFrame(rows)


def _row(who: Identity, template: str, asked: Asked, answer: str) -> dict[str, Any]:
    prompt = asked.prompt
    topical = on_topic(language(who.size), answer, kind=asked.kind, topic=asked.topic)
    return {
        "model": who.model,
        **asdict(who),
        "template": template,
        "split": prompt.split,
        "condition": prompt.condition,
        "kind": asked.kind,
        "prompt_id": prompt.id,
        "category": prompt.category,
        "cluster": prompt.cluster,
        "prompt": prompt.text,
        "answer": answer,
        "refused": refused_by_keyword(answer, ZOO_PHRASES),
        "on_topic": topical,
    }


@torch.inference_mode()
def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new: int, batch: int = 128
) -> list[str]:
    """Continue every prompt greedily until an end token; decoded, in the order of `prompts`.

    The model's end tokens are those of its `generation_config`. Positions are counted from the
    attention mask, so padding does not shift them.
    """
    answers = [""] * len(prompts)
    for chosen in in_budget([len(prompt) for prompt in prompts], rows=batch):
        longest = max(len(prompts[i]) for i in chosen)
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chosen):
            ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        out = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new
        )
        texts = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            answers[i] = text.strip()
    return answers
