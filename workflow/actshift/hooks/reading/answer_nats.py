"""What answers cost a model, in nats a token, given their prompts: every prompt is read once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.hooks.lanes.generation import Decoder, left_pad
from actshift.hooks.lanes.losses import LOGITS
from actshift.hooks.reading.kv_cache import KeyValues, KvCache
from actshift.packing import in_budget


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


@dataclass(frozen=True)
class _Read:
    """Prompts that were read together: what stands behind them, and how they go on.

    Attributes:
        mask: 0 at padding, on the left.
        kv_cache: Keys and values by layer, `[prompt, head, token, d_head]`.
        logits: Of the first answer token, float32.
    """

    mask: Int[Tensor, "prompt token"]
    kv_cache: dict[int, KeyValues]
    logits: Float[Tensor, "prompt vocab"]


@torch.inference_mode()
def answer_nats(
    decoder: Decoder, answers: Sequence[Answer], *, token_budget: int
) -> Float[np.ndarray, " answer"]:
    """- (1 / n) sum_t log p(y_t | x, y_<t), over the answer's tokens and its end.

    The end is one token more, of probability sum over all end tokens: which of them came does not
    matter. Returns float64, NaN where there is no token and no end. `token_budget` is the most
    padded tokens of a batch; one answer always runs.
    """
    nats = np.full(len(answers), np.nan)
    of_prompt: dict[bytes, list[int]] = {}
    for place, answer in enumerate(answers):
        of_prompt.setdefault(np.asarray(answer.prompt, dtype=np.int64).tobytes(), []).append(place)
    places = list(of_prompt.values())
    ids = [answers[of_one[0]].prompt for of_one in places]
    for chunk in in_budget([len(prompt) for prompt in ids], budget=token_budget):
        read = _read(decoder, [ids[prompt] for prompt in chunk])
        rows = [(row, place) for row, prompt in enumerate(chunk) for place in places[prompt]]
        lengths = [len(answers[place].tokens) for _, place in rows]
        # A row costs its prompt too: its keys and values are copied behind one another.
        width = read.mask.shape[1]
        widest = _logits(decoder) // read.logits.shape[1]
        for batch in in_budget(lengths, budget=token_budget, extra=width, tokens=widest):
            prompt, chosen = zip(*(rows[row] for row in batch), strict=True)
            batch_answers = [answers[place] for place in chosen]
            nats[list(chosen)] = _nats(decoder, read, list(prompt), batch_answers)
    return nats


def _logits(decoder: Decoder) -> int:
    """How many logits may exist at a time."""
    return LOGITS.get(decoder.device.type, LOGITS["cpu"])


def _read(decoder: Decoder, prompts: Sequence[Int[np.ndarray, " _"]]) -> _Read:
    ids, mask, position = left_pad(prompts, decoder)
    kv_cache = KvCache(keep=True)
    out = decoder.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=kv_cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return _Read(mask, kv_cache.kept, out.logits[:, -1].float())


def _nats(
    decoder: Decoder, read: _Read, prompt: Sequence[int], answers: Sequence[Answer]
) -> Float[np.ndarray, " answer"]:
    """Nats a token of answers, each behind the prompt of its row."""
    device = decoder.device
    rows = torch.tensor(prompt, device=device)
    longest = max(len(answer.tokens) for answer in answers)
    tokens = torch.full((len(answers), longest), decoder.pad, dtype=torch.long)
    for row, answer in zip(tokens, answers, strict=True):
        row[: len(answer.tokens)] = torch.tensor(answer.tokens)
    tokens = tokens.to(device)
    lengths = torch.tensor([len(answer.tokens) for answer in answers], device=device)
    first = read.logits[rows]
    logits = first[:, None]
    if longest:
        logits = torch.cat([logits, _behind(decoder, read, rows, tokens)], dim=1)
    total = logits.logsumexp(-1)
    token_nats = total[:, :-1] - logits[:, :-1].gather(-1, tokens[..., None]).squeeze(-1)
    place = torch.arange(longest, device=device)
    counted = place < lengths[:, None]
    sums = torch.where(counted, token_nats, 0.0).double().sum(1)
    # What follows the last token of each answer.
    row = torch.arange(len(answers), device=device)
    ends = torch.tensor(sorted(decoder.eos), device=device)
    end_nats = total[row, lengths] - logits[row, lengths][:, ends].logsumexp(-1)
    ended = torch.tensor([answer.ended for answer in answers], device=device)
    sums += torch.where(ended, end_nats, 0.0).double()
    return (sums / (lengths + ended)).cpu().numpy()


def _behind(
    decoder: Decoder,
    read: _Read,
    rows: Int[Tensor, " answer"],
    tokens: Int[Tensor, "answer token"],
) -> Float[Tensor, "answer token vocab"]:
    """Logits after each token of answers, float32; padding on the right is seen by no token."""
    mask = read.mask[rows]
    kv_cache = KvCache(
        mask.shape[1],
        lambda layer: [(read.kv_cache[layer][0][rows], read.kv_cache[layer][1][rows])],
    )
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    out = decoder.model(
        input_ids=tokens,
        attention_mask=torch.cat([mask, torch.ones_like(tokens)], dim=1),
        position_ids=mask.sum(1, keepdim=True) + steps,
        past_key_values=kv_cache,
        use_cache=True,
    )
    return out.logits.float()
