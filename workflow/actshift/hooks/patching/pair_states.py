"""What the states of pairs look like: moments over tokens, and how far two models are apart."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from actshift.hooks.patching.pair_batch import PairBatch, PairRun, make_batch, run_pairs
from actshift.hooks.reading.memory import in_batches
from actshift.hooks.reading.model_parts import CausalModel
from actshift.patching import PatchPositions, StateSums, TokenPair


def state_sums(
    causal: CausalModel,
    pairs: Sequence[TokenPair],
    *,
    positions: PatchPositions = "all",
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
            states = [_tokens(run, batch, layer, positions).double() for run in runs]
            rows = states[0] if minus is None else states[0] - states[1]
            parts.append((rows.sum(0).cpu().numpy(), (rows.T @ rows).cpu().numpy()))
        totals, seconds = zip(*parts, strict=True)
        return int(_real(batch, positions).sum()), np.stack(totals), np.stack(seconds)

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


def _real(batch: PairBatch, positions: PatchPositions) -> Bool[Tensor, " token"]:
    """Which places count, prompt columns first, flattened."""
    prompt = batch.prompt_real.clone()
    if positions == "completion":
        prompt[:] = False
    elif positions == "last_prompt":
        prompt[:, :-1] = False
    completion = batch.completion_real
    if positions in ("prompt", "last_prompt"):
        completion = torch.zeros_like(completion)
    return torch.cat([prompt.flatten(), completion.flatten()])


def _tokens(
    run: PairRun, batch: PairBatch, layer: int, positions: PatchPositions
) -> Float[Tensor, "token d_model"]:
    states = [run.prompt[layer].flatten(0, 1), run.completion[layer].flatten(0, 1)]
    return torch.cat(states)[_real(batch, positions)]
