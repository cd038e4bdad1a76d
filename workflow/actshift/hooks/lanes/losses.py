"""What text costs a model: the loss of plain text in every lane, and nats a token of answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.edits import Lane
from actshift.hooks.lanes.edit import EditState, edited
from actshift.hooks.lanes.fork import Fork, forked, shared_blocks
from actshift.hooks.lanes.generation import Decoder, left_pad
from actshift.hooks.reading.kv_cache import KeyValues, KvCache
from actshift.packing import in_budget

#: Logits held at once, in numbers: on a CPU what its caches still help with, on a GPU a gigabyte.
LOGITS = {"cpu": 2**24, "cuda": 2**28}


def predicted_tokens(texts: Sequence[Int[np.ndarray, " _"]]) -> list[int]:
    """How many tokens of each text are predicted: all but its first."""
    return [max(0, len(text) - 1) for text in texts]


@torch.inference_mode()
def lane_losses(
    decoder: Decoder, texts: Sequence[Int[np.ndarray, " _"]], lanes: Sequence[Lane]
) -> Float[np.ndarray, "lane text"]:
    """Loss of every text in every lane: - sum_t log p(x_t | x_<t), t from the second token on.

    The whole text counts as a prompt: edits at `all` or `prompt` act at all its tokens, those at
    `last_prompt` at its last one alone, which predicts nothing, so they change no loss. Texts
    include special tokens. Returns nats, float64, summed over the predicted tokens of a text
    (`predicted_tokens`).

    Raises:
        ValueError: A lane patches from a donor, or names a layer that is not there.
    """
    patching = [lane.name for lane in lanes if lane.needs_donor]
    if patching:
        raise ValueError(f"lane {patching[0]} patches from a donor; losses have none")
    ids, mask, position = left_pad(texts, decoder)
    each, blocks = len(texts), decoder.sites["resid_post"]
    state = EditState([(i * each, (i + 1) * each) for i in range(len(lanes))])
    fork = Fork(shared_blocks(lanes, len(blocks)))
    fork.set(torch.arange(each, device=ids.device).repeat(len(lanes)), each)
    with forked(blocks, fork), edited(decoder.sites, lanes, state, dtype=decoder.dtype):
        out = decoder.model(
            input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False
        )
    nats = _text_losses(out.logits.view(len(lanes), each, *out.logits.shape[1:]), ids, mask)
    return nats.cpu().numpy()


def lanes_a_batch(texts: Sequence[Int[np.ndarray, " _"]], decoder: Decoder, budget: int) -> int:
    """How many lanes fit beside each other under a token budget and the memory of the logits.

    `budget` is the most padded tokens of a batch; at least one lane fits.
    """
    tokens = len(texts) * max(len(text) for text in texts)
    vocab = decoder.model.get_output_embeddings().weight.shape[0]
    return max(1, min(budget, LOGITS.get(decoder.device.type, 2**24) // vocab) // tokens)


def _text_losses(
    logits: Float[Tensor, "lane text token vocab"],
    ids: Int[Tensor, "text token"],
    mask: Int[Tensor, "text token"],
) -> Float[Tensor, "lane text"]:
    """Sum over the tokens whose predecessor is a real one, not padding."""
    losses_of_lanes = []
    for lane in logits:  # one at a time: each needs several arrays of the logits' size
        wide = lane[:, :-1].float()
        chosen = wide.gather(-1, ids[:, 1:, None]).squeeze(-1)
        losses = (torch.logsumexp(wide, dim=-1) - chosen).double()
        losses_of_lanes.append((losses * mask[:, :-1]).sum(dim=1))
    return torch.stack(losses_of_lanes)


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
    by_prompt: dict[bytes, list[int]] = {}
    for place, answer in enumerate(answers):
        by_prompt.setdefault(np.asarray(answer.prompt, dtype=np.int64).tobytes(), []).append(place)
    places = list(by_prompt.values())
    ids = [answers[of_prompt[0]].prompt for of_prompt in places]
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
