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

    Nothing is copied. A head that is tied to the embedding is untied for the time: the part that is
    named changes, the other keeps the host's weights. The host is base for an insertion, tuned for
    a removal; the guest lends its weights.

    Raises:
        ValueError: There is no such layer, or the parts differ in names, shapes, dtype or device.
    """
    pairs = [
        (of_host, of_guest)
        for ours, other in zip(_modules(host, unit), _modules(guest, unit), strict=True)
        for of_host, of_guest in _matched(ours, other, unit)
    ]
    kept = [(dict(of_host._parameters), dict(of_host._buffers)) for of_host, _ in pairs]
    try:
        for of_host, of_guest in pairs:
            of_host._parameters.update(of_guest._parameters)
            of_host._buffers.update(of_guest._buffers)
        yield
    finally:
        for (of_host, _), (parameters, buffers) in zip(pairs, kept, strict=True):
            of_host._parameters.update(parameters)
            of_host._buffers.update(buffers)


def swap_scores(
    host: CausalModel,
    guest: CausalModel,
    pairs: Sequence[TokenPair],
    units: Sequence[SwapUnit],
    *,
    token_budget: int = 2**13,
) -> PairScores:
    """Completion log-probs of the host with one unit at a time exchanged, `[unit, pair, side]`.

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
    of_host, of_guest = dict(ours.named_modules()), dict(other.named_modules())
    if _kinds(of_host) != _kinds(of_guest):
        raise ValueError(f"swap of {unit.name}: the two models differ in weights, dtype or device")
    return [(of_host[name], of_guest[name]) for name in of_host]


def _kinds(modules: dict[str, nn.Module]) -> dict[str, tuple[object, ...]]:
    return {
        f"{path}.{name}": (tensor.shape, tensor.dtype, tensor.device)
        for path, module in modules.items()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }
