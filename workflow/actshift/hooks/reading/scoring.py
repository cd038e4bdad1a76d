"""Log-probs of completions, in float32, at the tokens that predict them and nowhere else.

log p(y | x) = sum_t log softmax(logits_t)[y_t], over completion tokens (Chaudhury 2025, eq. 1).
Logits come out of the model's own forward pass, entered at the final norm, so that soft caps and
scales are the model's own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actshift.hooks.patching.pair_batch import PairBatch, PairRun, make_batch, run_pairs
from actshift.hooks.patching.resume import idle
from actshift.hooks.reading.memory import in_batches
from actshift.hooks.reading.model_parts import CausalModel
from actshift.patching import PairScores, TokenPair

#: Logits that exist at one time, in numbers: on a CPU what stays in its cache, else many more.
_LOGITS, _LOGITS_CPU = 2**26, 2**19
#: Fewest tokens at one time, however large the vocabulary.
_LEAST = 64


def token_logp(
    causal: CausalModel, states: Float[Tensor, "token d_model"], targets: Int[Tensor, "token k"]
) -> Float[Tensor, "token k"]:
    """Log-prob in nats, float32, of k given next tokens, from the stream before the final norm."""
    out = torch.empty(targets.shape, dtype=torch.float32, device=states.device)
    with torch.inference_mode(), entered_at_norm(causal) as logits_of:
        vocab = causal.head.get_parameter("weight").shape[0]
        numbers = _LOGITS_CPU if states.device.type == "cpu" else _LOGITS
        step = max(_LEAST, numbers // vocab)
        for start in range(0, len(states), step):
            part = slice(start, start + step)
            logp = logits_of(states[part]).float().log_softmax(1)
            out[part] = logp.gather(1, targets[part])
    return out


def side_sums(
    causal: CausalModel,
    batch: PairBatch,
    prompt_ends: Float[Tensor, "lane pair d_model"],
    completions: Float[Tensor, "lane row read d_model"],
) -> Float[np.ndarray, "lane pair side"]:
    """Summed log-probs of both completions of a batch, for several lanes at once.

    `prompt_ends` are the last block's output at the last prompt token, which predicts the first
    token of both completions; `completions` the same at all completion tokens but the last.
    Returns nats, float64.
    """
    lanes, pairs = prompt_ends.shape[:2]
    firsts = batch.completion[:, 0].view(pairs, 2)
    first = token_logp(causal, prompt_ends.flatten(0, 1), firsts.repeat(lanes, 1))
    total = first.double().view(lanes, 2 * pairs)
    if batch.scored.any():
        places = batch.scored
        targets = batch.completion[:, 1:][places].repeat(lanes)
        later = token_logp(causal, completions[:, places].flatten(0, 1), targets[:, None])
        rows = places.nonzero()[:, 0].expand(lanes, -1)
        total = total.scatter_add(1, rows, later.double().view(lanes, -1))
    return total.view(lanes, pairs, 2).cpu().numpy()


def run_sums(
    causal: CausalModel, batch: PairBatch, run: PairRun
) -> Float[np.ndarray, "1 pair side"]:
    """Summed log-probs of a plain pass."""
    reads = batch.completion.shape[1] - 1
    return side_sums(
        causal, batch, run.prompt[-1][None, :, -1], run.completion[-1][None, :, :reads]
    )


def score_pairs(
    causal: CausalModel, pairs: Sequence[TokenPair], *, token_budget: int = 2**13
) -> PairScores:
    """Completion log-probs of a plain model, in the order of the pairs.

    Raises:
        UserError: One pair alone does not fit into memory.
    """

    def work(chosen: Sequence[int]) -> np.ndarray:
        batch = make_batch([pairs[i] for i in chosen], causal.device)
        return run_sums(causal, batch, run_pairs(causal, batch, last=False))[0]

    logp = np.empty((len(pairs), 2))
    for chosen, sums in in_batches(work, pairs, token_budget=token_budget).done:
        logp[list(chosen)] = sums
    return PairScores(logp, token_counts(pairs))


def token_counts(pairs: Sequence[TokenPair]) -> Int[np.ndarray, "pair side"]:
    """Completion tokens of each pair and side."""
    return np.array([[len(side) for side in pair.sides] for pair in pairs])


@contextmanager
def entered_at_norm(causal: CausalModel) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside the block the blocks of the model are idle, and its forward pass is its head alone.

    Yields:
        The logits `[row, vocab]` for outputs of the last block `[row, d_model]`, each row a
        sequence of its own; in the model's dtype, soft caps and scales included.
    """
    with ExitStack() as stack:
        for block in causal.blocks:
            stack.enter_context(idle(block))
        yield partial(_logits, causal)


def _logits(
    causal: CausalModel, states: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token vocab"]:
    """The model's logits for given outputs of its last block, every one a sequence of its own."""
    ids = torch.zeros(len(states), 1, dtype=torch.long, device=states.device)

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (states[:, None], *args[1:])

    with causal.final_norm.register_forward_pre_hook(enter):
        return causal.model(input_ids=ids, use_cache=False).logits[:, 0]
