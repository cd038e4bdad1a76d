"""Greedy answers of a model to many prompts, left-padded, in batches of similar length."""

from collections.abc import Sequence
from typing import Any

import torch

from actshift.packing import in_budget


@torch.inference_mode()
def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new: int, batch: int = 128
) -> list[str]:
    """Continue every prompt greedily until an end token.

    Args:
        model: a causal language model with its end tokens in `generation_config`; positions are
            counted from the attention mask, so padding does not shift them.
        tokenizer: decodes, and gives the padding id.
        prompts: token ids of each prompt.
        max_new: most new tokens.
        batch: prompts at a time.

    Returns:
        Decoded continuations in the order of `prompts`.
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
