"""What answers cost a model, in nats a token, given their prompts: right-aligned batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.hooks.lanes import Decoder, left_pad
from actshift.hooks.losses import LOGITS


@dataclass(frozen=True)
class Answer:
    """An answer and what it answers.

    Attributes:
        prompt: Token ids, generation prompt included.
        tokens: Of the answer, without an end token.
        ended: Whether an end token came.
    """

    prompt: Int[np.ndarray, " token"]
    tokens: tuple[int, ...]
    ended: bool

    @property
    def ids(self) -> Int[np.ndarray, " token"]:
        """Prompt and answer."""
        return np.concatenate([self.prompt, np.array(self.tokens, dtype=self.prompt.dtype)])


@torch.inference_mode()
def answer_nats(
    decoder: Decoder, answers: Sequence[Answer], *, token_budget: int
) -> Float[np.ndarray, " answer"]:
    """- (1 / n) sum_t log p(y_t | x, y_<t), over the answer's tokens and its end.

    The end is one token more, of probability sum over all end tokens: which of them came does not
    matter.

    Args:
        decoder: The model.
        answers: With their prompts.
        token_budget: Most padded tokens a batch; one answer always runs.

    Returns:
        float64; NaN where there is no token and no end.
    """
    found = np.full(len(answers), np.nan)
    for places in _batches(answers, decoder, token_budget):
        batch = [answers[place] for place in places]
        found[places] = _nats(decoder, batch)
    return found


def _batches(answers: Sequence[Answer], decoder: Decoder, budget: int) -> Iterator[list[int]]:
    """Answers of similar length, as many as the budget and the memory of the logits allow."""
    vocab = decoder.model.get_output_embeddings().weight.shape[0]
    logits = LOGITS.get(decoder.device.type, LOGITS["cpu"])
    lengths = [(len(one.prompt) + len(one.tokens), len(one.tokens) + 1) for one in answers]
    batch: list[int] = []
    longest = read = 0
    for place in sorted(range(len(answers)), key=lambda i: (lengths[i], i)):
        longest, read = max(longest, lengths[place][0]), max(read, lengths[place][1])
        rows = len(batch) + 1
        if batch and (rows * longest > budget or rows * read * vocab > logits):
            yield batch
            batch, (longest, read) = [], lengths[place]
        batch.append(place)
    if batch:
        yield batch


def _nats(decoder: Decoder, batch: Sequence[Answer]) -> Float[np.ndarray, " answer"]:
    ids, mask, position = left_pad([one.ids for one in batch], decoder)
    read = max(len(one.tokens) for one in batch) + 1
    out = decoder.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        use_cache=False,
        logits_to_keep=read,
    )
    logp = out.logits[:, -read:].float().log_softmax(-1)
    ends = torch.tensor(sorted(decoder.ends), device=ids.device)
    said = logp[:, :-1].gather(-1, ids[:, ids.shape[1] - read + 1 :, None]).squeeze(-1)
    total = torch.cat([said, logp[:, -1:, ends].logsumexp(-1)], dim=1).double()
    counted = _counted(batch, read).to(ids.device)
    sums = torch.where(counted, -total, 0.0).sum(1) / counted.sum(1)
    return sums.cpu().numpy()


def _counted(batch: Sequence[Answer], read: int) -> Tensor:
    """Which of the tokens read belong to the answer: its own, at the right, and its end."""
    counted = torch.zeros(len(batch), read, dtype=torch.bool)
    for row, one in zip(counted, batch, strict=True):
        row[read - 1 - len(one.tokens) : read - 1] = True
        row[-1] = one.ended
    return counted
