"""Exchanging the weights of one part of a model for another model's.

Unlike a patched state, whose effect at layer l holds everything below l, a swapped block is the
share of that block alone: inserted into base, or removed from tuned.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import nn

from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.scoring import score_pairs, token_counts
from actshift.patching import PairScores, SwapUnit, TokenPair


@contextmanager
def swapped(host: CausalModel, guest: CausalModel, unit: SwapUnit) -> Iterator[None]:
    """Let a part of the host hold the guest's weights; its own come back, whatever happens.

    Nothing is copied. A head that is tied to the embedding is untied for the time: the part that
    is named changes, the other keeps the host's weights.

    Args:
        host: The model that runs: base for an insertion, tuned for a removal.
        guest: The model that lends its weights.
        unit: What is exchanged.

    Raises:
        ValueError: There is no such layer, or the parts differ in names, shapes, dtype or device.
    """
    pairs = [
        (mine, theirs)
        for ours, other in zip(_modules(host, unit), _modules(guest, unit), strict=True)
        for mine, theirs in _matched(ours, other, unit)
    ]
    own = [(dict(mine._parameters), dict(mine._buffers)) for mine, _ in pairs]
    try:
        for mine, theirs in pairs:
            mine._parameters.update(theirs._parameters)
            mine._buffers.update(theirs._buffers)
        yield
    finally:
        for (mine, _), (parameters, buffers) in zip(pairs, own, strict=True):
            mine._parameters.update(parameters)
            mine._buffers.update(buffers)


def swap_scores(
    host: CausalModel,
    guest: CausalModel,
    pairs: Sequence[TokenPair],
    units: Sequence[SwapUnit],
    *,
    token_budget: int = 2**13,
) -> PairScores:
    """Completion log-probs of the host with one unit at a time exchanged.

    Args:
        host: The model that runs.
        guest: The model that lends its weights.
        pairs: Prompts and completions.
        units: What is exchanged.
        token_budget: As in `score_pairs`.

    Returns:
        `logp` is `[unit, pair, side]`.

    Raises:
        ValueError: As `swapped`.
        UserError: One pair alone does not fit into memory.
    """
    logp = np.empty((len(units), len(pairs), 2))
    for index, unit in enumerate(units):
        with swapped(host, guest, unit):
            logp[index] = score_pairs(host, pairs, token_budget=token_budget).logp
    return PairScores(logp, token_counts(pairs))


def _modules(causal: CausalModel, unit: SwapUnit) -> Sequence[nn.Module]:
    if unit.part == "embeddings":
        return causal.embeddings
    if unit.part == "head":
        return [causal.final_norm, causal.head]
    if unit.layer is None or not 0 <= unit.layer < causal.n_layers:
        raise ValueError(f"swap of {unit.part}: layer {unit.layer} of {causal.n_layers}")
    if unit.part == "block":
        return [causal.blocks[unit.layer]]
    halves = causal.attention if unit.part == "attention" else causal.mlp
    return halves[unit.layer]


def _matched(
    ours: nn.Module, other: nn.Module, unit: SwapUnit
) -> list[tuple[nn.Module, nn.Module]]:
    """Modules of the same name, with tensors of the same names and kinds."""
    mine, theirs = dict(ours.named_modules()), dict(other.named_modules())
    if _kinds(mine) != _kinds(theirs):
        raise ValueError(f"swap of {unit.name}: the two models differ in weights, dtype or device")
    return [(mine[name], theirs[name]) for name in mine]


def _kinds(modules: dict[str, nn.Module]) -> dict[str, tuple[object, ...]]:
    return {
        f"{path}.{name}": (tensor.shape, tensor.dtype, tensor.device)
        for path, module in modules.items()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }
