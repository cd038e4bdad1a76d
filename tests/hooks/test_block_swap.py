"""A swapped part is the guest's, all else the host's, and everything comes back."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from reference.patching import FAMILIES, log_prob, random_model, random_pairs

from actshift.engine.causal import causal_model
from actshift.hooks.patching.block_swap import swap_scores, swapped
from actshift.hooks.reading.scoring import score_pairs
from actshift.models.families import blocks_of, embedding_of, embeddings_of, final_norm_of, head_of
from actshift.patching import SwapUnit, swap_units

LAYERS = 4


@pytest.fixture(params=FAMILIES)
def models(request: Any) -> tuple[Any, Any]:
    return random_model(request.param), random_model(request.param, 1)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_parameters()}


def same(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and torch.equal(one, other)


def by_hand(host: Any, guest: Any, unit: SwapUnit) -> Any:
    """A copy of the host with the guest's tensors written into one part."""
    made = copy.deepcopy(host)
    # A tied head keeps the host's weights when the embedding changes, and the other way round.
    made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.clone())
    parts = {
        "embeddings": list(zip(embeddings_of(made), embeddings_of(guest), strict=True)),
        "head": [(final_norm_of(made), final_norm_of(guest)), (head_of(made), head_of(guest))],
    }
    if unit.part in parts:
        chosen = parts[unit.part]
    else:
        assert unit.layer is not None
        ours, theirs = (dict(blocks_of(m)[unit.layer].named_children()) for m in (made, guest))
        names = list(ours)
        # Every block lists attention and its norms, then the MLP; norms come by place in the pass.
        attention = {"input_layernorm", "self_attn", "ln_1", "attn"}
        if "pre_feedforward_layernorm" in ours:
            attention.add("post_attention_layernorm")
        keep = {
            "block": names,
            "attention": [name for name in names if name in attention],
            "mlp": [name for name in names if name not in attention],
        }[unit.part]
        chosen = [(ours[name], theirs[name]) for name in keep]
    for mine, their in chosen:
        mine.load_state_dict(their.state_dict())
    return made


def test_every_unit_equals_a_model_made_by_hand(models):
    host, guest = models
    pairs = random_pairs(3)
    units = [SwapUnit("embeddings"), SwapUnit("head")]
    units += [SwapUnit(part, 1) for part in ("block", "attention", "mlp")]
    found = swap_scores(causal_model(host), causal_model(guest), pairs, units)
    plain = score_pairs(causal_model(host), pairs)
    for unit, logp in zip(units, found.logp, strict=True):
        made = by_hand(host, guest, unit)
        with torch.inference_mode():
            wanted = [[log_prob(made, p.prompt, side) for side in p.sides] for p in pairs]
        np.testing.assert_allclose(logp, wanted, rtol=1e-4, err_msg=unit.name)
        assert np.abs(logp - plain.logp).max() > 1e-2, unit.name


def test_the_units_are_the_whole_model(models):
    host, guest = (causal_model(model) for model in models)
    pairs = random_pairs(3)
    wanted = score_pairs(guest, pairs).logp
    for parts in (("block",), ("attention", "mlp")):
        units = [unit for unit in swap_units(LAYERS) if unit.layer is None or unit.part in parts]
        found = nested(host, guest, units, lambda: score_pairs(host, pairs).logp)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def nested(host: Any, guest: Any, units: list[SwapUnit], work: Any) -> Any:
    if not units:
        return work()
    with swapped(host, guest, units[0]):
        return nested(host, guest, units[1:], work)


def test_weights_come_back_also_after_an_exception(models):
    host, guest = models
    before, lent = weights(host), weights(guest)
    tied = host.lm_head.weight is embedding_of(host).weight
    ours, theirs = causal_model(host), causal_model(guest)

    def stop(unit: SwapUnit) -> None:
        with swapped(ours, theirs, unit):
            changed = [n for n, t in host.named_parameters() if not same(before.get(n), t)]
            assert changed, unit.name
            raise RuntimeError("stop")

    for unit in swap_units(LAYERS):
        with pytest.raises(RuntimeError, match="stop"):
            stop(unit)
        for name, tensor in host.named_parameters():
            assert torch.equal(tensor, before[name]), unit.name
    assert all(torch.equal(tensor, lent[name]) for name, tensor in guest.named_parameters())
    assert (host.lm_head.weight is embedding_of(host).weight) == tied


def test_what_does_not_fit_is_refused():
    host = causal_model(random_model("llama"))
    with pytest.raises(ValueError, match=r"swap of block@1: the two models differ"):
        with swapped(host, causal_model(random_model("llama").bfloat16()), SwapUnit("block", 1)):
            pass
    with pytest.raises(ValueError, match="swap of mlp: layer 4 of 4"):
        with swapped(host, host, SwapUnit("mlp", 4)):
            pass
    with pytest.raises(ValueError, match="swap of block: layer None"):
        with swapped(host, host, SwapUnit("block")):
            pass
