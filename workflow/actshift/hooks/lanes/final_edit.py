"""Edits of the last block's output at the last prompt token: matrix products, no forward pass.

Nothing reads that state but the final norm and the head, at this one token: the edit changes the
first generated token's logits and nothing else. So a direction costs one product,
logits = softcap(head(norm(h - v))), and what follows a first token is plain generation, done once
for every distinct (prompt, first token).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.edits import Lane
from actshift.hooks.lanes.generation import Continuation, Decoder, generate_lanes
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.record import run_batch
from actshift.hooks.reading.scoring import entered_at_norm
from actshift.packing import in_budget

#: Logits held at once, in numbers: on a CPU what its caches still help with, on a GPU a gigabyte.
_LOGITS, _LOGITS_CPU = 2**28, 2**21
#: Logits of some prompts in some lanes, float32.
_EditedLogits = Callable[[slice, slice], Float[Tensor, "prompt lane vocab"]]


@dataclass(frozen=True)
class FirstTokens:
    """What edits do to the first answer token.

    Attributes:
        tokens: The likeliest token, int32.
        kl: KL(plain || edited) of its distribution, nats, float32.
    """

    tokens: Int[np.ndarray, "lane prompt"]
    kl: Float[np.ndarray, "lane prompt"]


def final_states(
    causal: CausalModel, prompts: Sequence[Int[np.ndarray, " _"]], *, token_budget: int
) -> Float[Tensor, "prompt d_model"]:
    """Output of the last block at the last token of every prompt.

    Returns float32 on the model's device; a narrower dtype is widened, which is exact.
    `token_budget` is the most padded tokens of a pass; one prompt always runs.
    """
    top = replace(causal, blocks=causal.blocks[-1:])
    out = torch.empty(len(prompts), causal.d_model, device=causal.device)
    for places in in_budget([len(prompt) for prompt in prompts], budget=token_budget):
        ids = [prompts[place] for place in places]
        last = np.array([[len(prompt) - 1 for prompt in ids]])
        out[places] = torch.from_numpy(run_batch(top, ids, last)[0, 0]).to(out.device)
    return out


def first_tokens(
    causal: CausalModel,
    states: Float[Tensor, "prompt d_model"],
    vectors: Float[np.ndarray, "lane d_model"],
) -> FirstTokens:
    """First tokens when a vector is subtracted: argmax softcap(head(norm(h - v))).

    h are the `final_states` of the prompts, v the vectors of the lanes, coefficient included.

    Source: the published protocol of arXiv 2606.20225 (final layer, last prompt token).
    """
    with _plain_and_edited(causal, states, vectors) as (plain, edited):
        return _judged(edited, plain, lanes=len(vectors))


def mean_bias(
    causal: CausalModel,
    states: Float[Tensor, "prompt d_model"],
    vectors: Float[np.ndarray, "lane d_model"],
) -> Float[np.ndarray, "lane vocab"]:
    """The fixed bias on first-token logits that an edit is on average.

    b = mean over prompts of logits(h - v) - logits(h), about -W_U (g * v) / rms(h). h are the
    states of the prompts that the bias is measured on, v the vectors of the lanes, coefficient
    included. Returns float32.
    """
    with _plain_and_edited(causal, states, vectors) as (plain, edited):
        total = torch.zeros(len(vectors), plain.shape[1], dtype=torch.float64, device=plain.device)
        for prompt, lane in _chunks(plain, lanes=len(vectors)):
            total[lane] += (edited(prompt, lane) - plain[prompt, None]).double().sum(0)
    return (total / len(states)).float().cpu().numpy()


def biased_first_tokens(
    causal: CausalModel,
    states: Float[Tensor, "prompt d_model"],
    biases: Float[np.ndarray, "lane vocab"],
) -> FirstTokens:
    """First tokens when a fixed vector is added to their logits: argmax logits(h) + b.

    h are the `final_states` of the prompts, b the `mean_bias` of the lanes.
    """
    bias = torch.as_tensor(biases, dtype=torch.float32, device=states.device)
    with torch.inference_mode(), entered_at_norm(causal) as logits_of:
        plain = logits_of(states.to(causal.dtype)).float()
        return _judged(
            lambda prompt, lane: plain[prompt, None] + bias[lane], plain, lanes=len(bias)
        )


def first_kl(
    plain: Float[np.ndarray, "prompt vocab"], logits: Float[np.ndarray, "lane prompt vocab"]
) -> Float[np.ndarray, "lane prompt"]:
    """KL(plain || lane) of first tokens whose logits are there, nats, float32."""
    plain_logits, other = torch.from_numpy(plain), torch.from_numpy(logits).transpose(0, 1)
    p = plain_logits.softmax(1)
    excess = _cross_entropy(p, other) - _cross_entropy(p, plain_logits[:, None])
    return excess.clamp(min=0).T.contiguous().numpy()


def plain_logits(
    causal: CausalModel, states: Float[Tensor, "prompt d_model"]
) -> Float[np.ndarray, "prompt vocab"]:
    """Logits of the first token without an edit, float32."""
    with torch.inference_mode(), entered_at_norm(causal) as logits_of:
        return logits_of(states.to(causal.dtype)).float().cpu().numpy()


def continue_from(
    decoder: Decoder,
    prompts: Sequence[Int[np.ndarray, " _"]],
    pairs: Sequence[tuple[int, int]],
    *,
    max_new: int,
    token_budget: int,
) -> list[Continuation]:
    """Greedy answers of the plain model after a forced first token.

    A pair is (place of the prompt, first token); an end token is an empty answer. `max_new`
    includes the forced token, which stands in front of each answer; `token_budget` is the most
    padded tokens of a pass, prompt and answer, and one row always runs.
    """
    answers: dict[int, Continuation] = {}
    waiting: list[tuple[int, Int[np.ndarray, " token"]]] = []
    for place, (prompt, token) in enumerate(pairs):
        if token in decoder.eos:
            answers[place] = Continuation((), True, float("inf"))
        elif max_new == 1:
            answers[place] = Continuation((token,), False, float("inf"))
        else:
            waiting.append((place, np.append(prompts[prompt], token)))
    lengths = [len(ids) + max_new - 1 for _, ids in waiting]
    for places in in_budget(lengths, budget=token_budget):
        chosen = [waiting[place] for place in places]
        ids = [tokens_of_row for _, tokens_of_row in chosen]
        generated = generate_lanes(decoder, ids, [Lane("plain")], max_new=max_new - 1).answers[0]
        for (place, tokens_of_row), answer in zip(chosen, generated, strict=True):
            tokens = (int(tokens_of_row[-1]), *answer.tokens)
            answers[place] = Continuation(tokens, answer.ended, answer.margin)
    return [answers[place] for place in range(len(pairs))]


def _chunks(plain: Float[Tensor, "prompt vocab"], *, lanes: int) -> Iterator[tuple[slice, slice]]:
    """Rectangles of prompts x lanes that hold a bounded number of logits; lanes change fastest."""
    numbers = _LOGITS_CPU if plain.device.type == "cpu" else _LOGITS
    rows = max(1, numbers // plain.shape[1])
    width = min(lanes, rows)
    height = max(1, rows // max(1, width))
    for prompt in range(0, len(plain), height):
        for lane in range(0, lanes, width):
            yield slice(prompt, prompt + height), slice(lane, lane + width)


@contextmanager
def _plain_and_edited(
    causal: CausalModel,
    states: Float[Tensor, "prompt d_model"],
    vectors: Float[np.ndarray, "lane d_model"],
) -> Iterator[tuple[Float[Tensor, "prompt vocab"], _EditedLogits]]:
    """Plain logits, and those of some prompts in some lanes; differences are taken in float32."""
    shift = torch.as_tensor(vectors, dtype=torch.float32, device=states.device)
    with torch.inference_mode(), entered_at_norm(causal) as logits_of:

        def edited(prompt: slice, lane: slice) -> Float[Tensor, "prompt lane vocab"]:
            moved = (states[prompt][:, None] - shift[lane][None]).to(causal.dtype)
            return logits_of(moved.flatten(0, 1)).float().view(*moved.shape[:2], -1)

        yield logits_of(states.to(causal.dtype)).float(), edited


def _judged(
    logits_of: _EditedLogits,
    plain: Float[Tensor, "prompt vocab"],
    *,
    lanes: int,
) -> FirstTokens:
    """First tokens, and KL(p || q) = (lse(q) - p . q) - (lse(plain) - p . plain) for logits q."""
    tokens = torch.empty(len(plain), lanes, dtype=torch.int32)
    kl = torch.empty(len(plain), lanes, dtype=torch.float32)
    p = plain.softmax(1)
    entropy = _cross_entropy(p, plain[:, None])
    for prompt, lane in _chunks(plain, lanes=lanes):
        logits = logits_of(prompt, lane)
        best = logits.max(2)
        tokens[prompt, lane] = best.indices.int().cpu()
        expected = (logits @ p[prompt, :, None]).squeeze(2)
        # In place, and with the maximum that is known: these logits are most of the memory traffic.
        total = logits.sub_(best.values[..., None]).exp_().sum(2).log_().add_(best.values)
        kl[prompt, lane] = (total - expected - entropy[prompt]).clamp(min=0).cpu()
    return FirstTokens(tokens.T.contiguous().numpy(), kl.T.contiguous().numpy())


def _cross_entropy(
    p: Float[Tensor, "prompt vocab"], logits: Float[Tensor, "prompt lane vocab"]
) -> Float[Tensor, "prompt lane"]:
    """- sum_i p_i log q_i of each row."""
    return logits.logsumexp(2) - (logits @ p[:, :, None]).squeeze(2)
