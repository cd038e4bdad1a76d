"""A batch of preference pairs: prompts padded left, completions right; and what its states are.

The two completions of a pair continue one and the same prompt pass, whose keys and values are
computed once. Prompts are padded on the left so that prompt and completion stay one behind the
other (a sliding window counts columns); completions on the right, where no real token looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actshift.hooks.patching.resume import Segment, run_whole
from actshift.hooks.reading.kv_cache import KeyValues, KvCache, for_both_sides
from actshift.hooks.reading.memory import in_batches
from actshift.hooks.reading.model_parts import CausalModel
from actshift.patching import StateSums, TokenPair


@dataclass(frozen=True)
class PairBatch:
    """Pairs as tensors. Completion rows are ordered by pair, then side.

    Attributes:
        pairs: The pairs.
        prompt: Token ids, `[pair, P]`.
        prompt_real: Which are no padding, `[pair, P]`.
        completion: Token ids, `[2 * pair, C]`.
        completion_real: Which are no padding, `[2 * pair, C]`.
    """

    pairs: Sequence[TokenPair]
    prompt: Int[Tensor, "pair P"]
    prompt_real: Bool[Tensor, "pair P"]
    completion: Int[Tensor, "row C"]
    completion_real: Bool[Tensor, "row C"]

    @property
    def scored(self) -> Bool[Tensor, "row read"]:
        """Completion tokens that are read to predict the next one: all but each last."""
        return self.completion_real[:, 1:]

    def prompt_segment(self, start: int = 0) -> Segment:
        """The prompt from a column on; what lies before it is the prefix."""
        positions = (self.prompt_real.long().cumsum(1) - 1).clamp(min=0)
        if self._even:
            return Segment(self.prompt[:1, start:], positions[:1, start:], None, start)
        return Segment(self.prompt[:, start:], positions[:, start:], self.prompt_real, start)

    def completion_segment(self, tokens: int, rows: Sequence[int]) -> Segment:
        """The first tokens of some completions, behind their prompts."""
        width = self.prompt.shape[1]
        counted = torch.arange(tokens, device=self.prompt.device)
        if self._even:
            return Segment(self.completion[:1, :tokens], (width + counted)[None], None, width)
        real = self.prompt_real[[row // 2 for row in rows]]
        positions = real.sum(1, keepdim=True) + counted
        # Padding of completions comes after all that is real: nothing has to be hidden there.
        mask = torch.cat([real, real.new_ones(len(real), tokens)], dim=1)
        return Segment(self.completion[list(rows), :tokens], positions, mask, width)

    @property
    def _even(self) -> bool:
        """Whether one row stands for all: no prompt is padded."""
        return bool(self.prompt_real.all())


def make_batch(pairs: Sequence[TokenPair], device: torch.device) -> PairBatch:
    """Pad pairs.

    Raises:
        ValueError: A prompt or a completion is empty.
    """
    for pair in pairs:
        if not (pair.prompt and pair.chosen and pair.rejected):
            raise ValueError(f"pair {pair.id}: prompt and completions must hold a token each")
    prompts = [pair.prompt for pair in pairs]
    width = max(map(len, prompts))
    completions = [side for pair in pairs for side in pair.sides]
    longest = max(map(len, completions))
    left = np.zeros((len(pairs), width), dtype=np.int64)
    right = np.zeros((len(completions), longest), dtype=np.int64)
    for row, ids in zip(left, prompts, strict=True):
        row[width - len(ids) :] = ids
    for row, ids in zip(right, completions, strict=True):
        row[: len(ids)] = ids
    is_prompt = np.arange(width) >= width - np.array([[len(ids)] for ids in prompts])
    is_completion = np.arange(longest) < np.array([[len(ids)] for ids in completions])
    tensors = (torch.from_numpy(a).to(device) for a in (left, is_prompt, right, is_completion))
    return PairBatch(pairs, *tensors)


@dataclass(frozen=True)
class PairRun:
    """A model's plain pass over a batch: `resid_post` of every layer.

    Attributes:
        prompt: By layer, `[pair, P, d_model]`.
        completion: By layer, `[2 * pair, C, d_model]`.
        kv_cache: By layer, keys and values of the prompt, `[pair, head, P, d_head]`.
    """

    prompt: Sequence[Float[Tensor, "pair P d_model"]]
    completion: Sequence[Float[Tensor, "row C d_model"]]
    kv_cache: Sequence[KeyValues]

    def of_pairs(self, pairs: slice, width: int, tokens: int) -> "PairRun":
        """Some pairs that lie side by side, as views of at most so many columns."""
        rows = slice(2 * pairs.start, 2 * pairs.stop)
        return PairRun(
            [states[pairs, -width:] for states in self.prompt],
            [states[rows, :tokens] for states in self.completion],
            [
                (keys[pairs, :, -width:], values[pairs, :, -width:])
                for keys, values in self.kv_cache
            ],
        )


def run_pairs(causal: CausalModel, batch: PairBatch, *, last: bool = True) -> PairRun:
    """Read prompts once and both completions behind them.

    `last` says whether to read the last column of the completions too, which predicts nothing.
    """
    kv_cache = KvCache(keep=True)
    # The real rows are needed here, whether or not one could stand for all masks.
    segment = batch.prompt_segment()
    prompt = run_whole(causal, _with_ids(segment, batch.prompt), kv_cache)
    kept = [kv_cache.kept[layer] for layer in range(causal.n_layers)]
    tokens = batch.completion.shape[1] - (0 if last else 1)
    if tokens == 0:
        empty = [states.new_empty(2 * len(batch.pairs), 0, states.shape[-1]) for states in prompt]
        return PairRun(prompt, empty, kept)

    segment = batch.completion_segment(tokens, range(len(batch.completion)))
    behind = KvCache(segment.prefix, lambda layer: [for_both_sides(kept[layer])])
    ids = batch.completion[:, :tokens]
    return PairRun(prompt, run_whole(causal, _with_ids(segment, ids), behind), kept)


def _with_ids(segment: Segment, ids: Int[Tensor, "row token"]) -> Segment:
    rows = len(ids)
    positions = segment.positions.expand(rows, -1)
    return Segment(ids, positions, segment.mask, segment.prefix)


def state_sums(
    causal: CausalModel,
    pairs: Sequence[TokenPair],
    *,
    minus: CausalModel | None = None,
    token_budget: int = 2**13,
) -> StateSums:
    """First and second moments of `resid_post` over the tokens of pairs, prompts counted once.

    With `minus`, moments of the shift: states of `causal` minus those of that model. float64 sums;
    those of disjoint sets of pairs add up.

    Raises:
        UserError: One pair alone does not fit into memory.
    """

    def work(places: Sequence[int]) -> tuple[int, np.ndarray, np.ndarray]:
        batch = make_batch([pairs[i] for i in places], causal.device)
        runs = [run_pairs(model, batch) for model in (causal, minus) if model is not None]
        parts = []
        for layer in range(causal.n_layers):
            states = [_tokens(run, batch, layer).double() for run in runs]
            rows = states[0] if minus is None else states[0] - states[1]
            parts.append((rows.sum(0).cpu().numpy(), (rows.T @ rows).cpu().numpy()))
        totals, seconds = zip(*parts, strict=True)
        return int(_real(batch).sum()), np.stack(totals), np.stack(seconds)

    sums = [result for _, result in in_batches(work, pairs, token_budget=token_budget).done]
    counts, totals, seconds = zip(*sums, strict=True)
    return StateSums(sum(counts), np.sum(totals, axis=0), np.sum(seconds, axis=0))


def shift_norms(
    receiver: CausalModel,
    donor: CausalModel,
    pairs: Sequence[TokenPair],
    *,
    token_budget: int = 2**13,
) -> Float[np.ndarray, "layer pair place"]:
    """Distance of donor and receiver, ||h_donor - h_receiver||, at single tokens.

    Returns:
        Euclidean norms at three places: the last prompt token, the last token of chosen (the
        published "final token"), the last token of rejected.

    Raises:
        UserError: One pair alone does not fit into memory.

    Source: Chaudhury 2025 (arXiv 2510.16167), layer-wise distances.
    """

    def work(places: Sequence[int]) -> np.ndarray:
        batch = make_batch([pairs[i] for i in places], receiver.device)
        of_receiver, of_donor = run_pairs(receiver, batch), run_pairs(donor, batch)
        ends = batch.completion_real.sum(1) - 1
        rows = torch.arange(len(ends), device=ends.device)
        norms = []
        for layer in range(receiver.n_layers):
            prompt = (
                of_donor.prompt[layer][:, -1].float() - of_receiver.prompt[layer][:, -1].float()
            ).norm(dim=-1)
            last = of_donor.completion[layer][rows, ends].float()
            away = (last - of_receiver.completion[layer][rows, ends].float()).norm(dim=-1)
            norms.append(torch.cat([prompt[:, None], away.view(-1, 2)], dim=1).cpu().numpy())
        return np.stack(norms)

    out = np.empty((receiver.n_layers, len(pairs), 3))
    for places, norms in in_batches(work, pairs, token_budget=token_budget).done:
        out[:, list(places)] = norms
    return out


def _real(batch: PairBatch) -> Bool[Tensor, " token"]:
    """Which places are no padding, prompt columns first, flattened."""
    return torch.cat([batch.prompt_real.flatten(), batch.completion_real.flatten()])


def _tokens(run: PairRun, batch: PairBatch, layer: int) -> Float[Tensor, "token d_model"]:
    states = [run.prompt[layer].flatten(0, 1), run.completion[layer].flatten(0, 1)]
    return torch.cat(states)[_real(batch)]
