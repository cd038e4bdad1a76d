"""Staircase patching equals one full forward a layer; identity is nothing; the top is the donor."""

from typing import Any

import numpy as np
import pytest
import torch
from reference.patch_lanes import every_layer
from reference.patching import (
    FAMILIES,
    log_prob,
    patched_log_probs,
    random_model,
    random_pairs,
)

from actshift.engine.causal import causal_model
from actshift.hooks.patching.staircase import patch_sweep
from actshift.hooks.reading.model_parts import CausalModel
from actshift.patching import (
    RECEIVER,
    Contrast,
    Noise,
    PatchEdit,
    PatchLane,
    PatchPositions,
    Push,
    Take,
    TokenPair,
)

LAYERS, WIDTH = 4, 32
POSITIONS: tuple[PatchPositions, ...] = ("all", "prompt", "completion", "last_prompt")
CLOSE = 1e-4


@pytest.fixture(params=FAMILIES)
def models(request: Any) -> tuple[CausalModel, CausalModel]:
    return causal_model(random_model(request.param)), causal_model(random_model(request.param, 1))


def edits() -> dict[str, PatchEdit]:
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((WIDTH, 5)))[0]
    direction = rng.standard_normal(WIDTH)
    return {
        "mix": Take(0.3),
        "rank": Take(basis=basis),
        "rebuilt": Take(0.7, basis=basis[:, ::-1], keep_rest=False),
        "chosen": Take(side="chosen"),
        "rejected": Take(side="rejected"),
        "contrast": Contrast(0.5),
        "noise": Noise(rng.standard_normal(WIDTH), rng.random(WIDTH), seed=2),
        "push": Push(direction / np.linalg.norm(direction)),
        "shuffled": Take(source="shuffled"),
    }


def slow(
    models: tuple[CausalModel, CausalModel],
    pairs: list[TokenPair],
    lanes: list[PatchLane],
    partners: list[TokenPair] | None = None,
) -> np.ndarray:
    others = partners or pairs
    with torch.inference_mode():
        return np.array(
            [
                [
                    patched_log_probs(
                        models[0].model, models[1].model, pair, lane, {"shuffled": other}
                    )
                    for pair, other in zip(pairs, others, strict=True)
                ]
                for lane in lanes
            ]
        )


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_layer_equals_a_full_forward(models, positions):
    pairs = random_pairs()
    lanes = every_layer("patch", Take(), n_layers=LAYERS, positions=positions)
    sweep = patch_sweep(*models, pairs, lanes)
    np.testing.assert_allclose(sweep.lanes.logp, slow(models, pairs, lanes), rtol=CLOSE)
    assert np.abs(sweep.effect).mean(axis=1).min() > 1e-2  # the patches do something


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("tokens", [0, 10**6])
def test_completions_of_unlike_length_may_run_apart(models, positions, tokens, monkeypatch):
    """A pass a length, where passes cost nothing; one pass for all, where they cost much."""
    monkeypatch.setattr("actshift.hooks.patching.staircase._PASS_TOKENS", tokens)
    pairs = random_pairs()
    lanes = every_layer("patch", Take(), n_layers=LAYERS, positions=positions)
    sweep = patch_sweep(*models, pairs, lanes)
    np.testing.assert_allclose(sweep.lanes.logp, slow(models, pairs, lanes), rtol=CLOSE)


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_edit_equals_the_reference(positions):
    models = causal_model(random_model("llama")), causal_model(random_model("llama", 1))
    pairs = random_pairs()
    partners = [*pairs[1:], pairs[0]]
    lanes = [
        PatchLane(f"{name}@{layer}", layer, edit, positions)
        for name, edit in edits().items()
        for layer in (0, 2)
    ]
    sweep = patch_sweep(*models, pairs, lanes, partners={"shuffled": partners})
    wanted = slow(models, pairs, lanes, partners)
    np.testing.assert_allclose(sweep.lanes.logp, wanted, rtol=CLOSE)
    still = {"contrast"} if positions in ("prompt", "last_prompt") else set()
    for lane, effect in zip(lanes, sweep.effect, strict=True):
        moved = bool(np.abs(effect).max() > 1e-3)
        assert moved == (lane.name.split("@")[0] not in still), lane.name


def test_plain_scores_are_those_of_full_forwards(models):
    pairs = random_pairs()
    sweep = patch_sweep(*models, pairs, [])
    for causal, found in zip(models, (sweep.receiver, sweep.donor), strict=True):
        with torch.inference_mode():
            wanted = [[log_prob(causal.model, p.prompt, side) for side in p.sides] for p in pairs]
        np.testing.assert_allclose(found.logp, wanted, rtol=CLOSE)
        np.testing.assert_array_equal(found.tokens, [[len(s) for s in p.sides] for p in pairs])


@pytest.mark.parametrize("positions", POSITIONS)
def test_identity_has_exactly_no_effect(models, positions):
    lanes = [
        *every_layer("self", Take(source=RECEIVER), n_layers=LAYERS, positions=positions),
        *every_layer("off", Take(alpha=0.0), n_layers=LAYERS, positions=positions),
    ]
    sweep = patch_sweep(*models, random_pairs(), lanes)
    assert (sweep.effect == 0).all()
    assert np.abs(sweep.gap).min() > 0
    # Pushed through the blocks all the same, what is left is rounding.
    run = patch_sweep(*models, random_pairs(), lanes, run_unchanged=True)
    assert np.abs(run.effect).max() < CLOSE


def test_the_top_with_the_donors_head_is_the_donor(models):
    pairs = random_pairs()
    own = PatchLane("own", LAYERS - 1, Take())
    lent = PatchLane("lent", LAYERS - 1, Take(), head="donor")
    sweep = patch_sweep(*models, pairs, [own, lent])
    np.testing.assert_allclose(sweep.lanes.logp[1], sweep.donor.logp, rtol=CLOSE)
    assert np.abs(sweep.lanes.logp[0] - sweep.donor.logp).max() > 1e-2
    np.testing.assert_allclose(sweep.lanes.logp, slow(models, pairs, [own, lent]), rtol=CLOSE)


def test_contrast_at_prompt_positions_is_exactly_nothing(models):
    lanes = [
        lane
        for positions in ("prompt", "last_prompt")
        for lane in every_layer(positions, Contrast(), n_layers=LAYERS, positions=positions)
    ]
    assert (patch_sweep(*models, random_pairs(), lanes).effect == 0).all()


@pytest.mark.parametrize("budget", [1, 150, 10**6])
def test_batches_and_company_change_nothing(budget):
    models = causal_model(random_model("gemma2")), causal_model(random_model("gemma2", 1))
    pairs, names = random_pairs(4), edits()
    lanes = [
        PatchLane(f"{name} {positions}", layer, names[name], positions)
        for layer, (name, positions) in enumerate(zip(names, POSITIONS, strict=False))
    ]
    lanes += [PatchLane("again", 0, names["noise"], "all"), PatchLane("up", 2, Take(), "prompt")]
    alone = np.array(
        [
            [patch_sweep(*models, [pair], [lane]).lanes.logp[0, 0] for pair in pairs]
            for lane in lanes
        ]
    )
    found = patch_sweep(*models, pairs[::-1], lanes[::-1], token_budget=budget)
    np.testing.assert_allclose(found.lanes.logp[::-1, ::-1], alone, rtol=CLOSE)


def test_blocks_are_evaluated_above_each_lane_only():
    models = causal_model(random_model("llama")), causal_model(random_model("llama", 1))
    pair = TokenPair("even", (3, 4, 5, 6, 7), (8, 9, 10), (11, 12, 13))
    tokens = [0] * LAYERS

    def count(index: int) -> Any:
        def hook(_module: Any, args: Any, _kwargs: Any) -> None:
            tokens[index] += args[0].shape[0] * args[0].shape[1]

        return hook

    handles = [
        block.get_submodule("mlp").register_forward_pre_hook(count(index), with_kwargs=True)
        for index, block in enumerate(models[0].blocks)
    ]
    read = len(pair.prompt) + 2 * (max(map(len, pair.sides)) - 1)
    sweep_lanes = every_layer("patch", Take(), n_layers=LAYERS)
    patch_sweep(*models, [pair], [])
    plain, tokens[:] = list(tokens), [0] * LAYERS
    assert plain == [read] * LAYERS
    patch_sweep(*models, [pair], sweep_lanes)
    for handle in handles:
        handle.remove()
    # Block i sees the lanes of the layers below it, once each: L (L - 1) / 2 in all. The last block
    # goes on with one token of their prompts.
    by_block = [read] * (LAYERS - 1) + [read - len(pair.prompt) + 1]
    assert [seen - once for seen, once in zip(tokens, plain, strict=True)] == [
        each * index for index, each in enumerate(by_block)
    ]


def test_nothing_is_left_on_the_model(models):
    lanes = every_layer("patch", Take(), n_layers=LAYERS, positions="all")
    patch_sweep(*models, random_pairs(2), lanes)
    for causal in models:
        for module in causal.model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "forward" not in vars(module)


def test_bf16_keeps_its_dtype_and_identity_is_still_nothing():
    models = [causal_model(random_model("qwen2", seed).bfloat16()) for seed in (0, 1)]
    lanes = every_layer("self", Take(source=RECEIVER), n_layers=LAYERS)
    lanes += every_layer("patch", Take(0.5), n_layers=LAYERS)
    sweep = patch_sweep(models[0], models[1], random_pairs(), lanes)
    assert (sweep.effect[:LAYERS] == 0).all()
    assert np.isfinite(sweep.lanes.logp).all()
    assert np.abs(sweep.effect[LAYERS:]).min() > 0


def test_bad_lanes_are_refused():
    models = causal_model(random_model("llama")), causal_model(random_model("llama", 1))
    pairs = random_pairs(2)
    with pytest.raises(ValueError, match="two lanes share a name"):
        patch_sweep(*models, pairs, [PatchLane("a", 0, Take()), PatchLane("a", 1, Take())])
    with pytest.raises(ValueError, match="lane a: layer 4 of 4"):
        patch_sweep(*models, pairs, [PatchLane("a", 4, Take())])
    with pytest.raises(ValueError, match="no source 'other'"):
        patch_sweep(*models, pairs, [PatchLane("a", 0, Take(source="other"))])
    with pytest.raises(ValueError, match="one partner a pair"):
        patch_sweep(*models, pairs, [], partners={"other": pairs[:1]})
    empty = TokenPair("void", (3,), (4,), ())
    with pytest.raises(ValueError, match="pair void"):
        patch_sweep(*models, [empty], [])
    deep = causal_model(random_model("llama", n_layers=5))
    with pytest.raises(ValueError, match="receiver has 4 blocks, donor 5"):
        patch_sweep(models[0], deep, pairs, [])
