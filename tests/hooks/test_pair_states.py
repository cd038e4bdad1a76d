"""Moments and distances of pair states against one full forward a sequence."""

from typing import Any

import numpy as np
import pytest
import torch
from reference.patching import outputs, random_model, random_pairs

from actshift.engine.causal import causal_model
from actshift.hooks.patching.pair_batch import shift_norms, state_sums
from actshift.patching import TokenPair

LAYERS, WIDTH = 4, 32


def stacked(model: Any, pairs: list[TokenPair], layer: int) -> np.ndarray:
    rows = []
    for pair in pairs:
        n = len(pair.prompt)
        with torch.inference_mode():
            sides = [outputs(model, pair.prompt + side)[layer] for side in pair.sides]
        rows += [sides[0][:n], *(side[n:] for side in sides)]
    return np.concatenate(rows)


@pytest.mark.parametrize("budget", [1, 10**6])
def test_sums_are_those_of_the_stacked_states(budget: int):
    model, other = random_model("gemma2"), random_model("gemma2", 1)
    pairs = random_pairs()
    causal = causal_model(model)
    found = state_sums(causal, pairs, token_budget=budget)
    shift = state_sums(causal, pairs, minus=causal_model(other), token_budget=budget)
    for layer in range(LAYERS):
        rows = stacked(model, pairs, layer)
        away = rows - stacked(other, pairs, layer)
        assert found.count == shift.count == len(rows)
        np.testing.assert_allclose(found.total[layer] / len(rows), rows.mean(0), atol=1e-4)
        np.testing.assert_allclose(found.second[layer], rows.T @ rows, rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(shift.second[layer], away.T @ away, rtol=1e-3, atol=1e-2)
        values = np.linalg.svd(rows, compute_uv=False) ** 2
        basis = found.basis(layer, 3)
        np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-8)
        held = np.square(rows @ basis).sum()
        assert held == pytest.approx(values[:3].sum(), rel=1e-4)


def test_sums_of_parts_add_up():
    causal, pairs = causal_model(random_model("llama")), random_pairs()
    whole, *parts = (state_sums(causal, some) for some in (pairs, pairs[:2], pairs[2:]))
    assert whole.count == sum(part.count for part in parts)
    np.testing.assert_allclose(whole.second, parts[0].second + parts[1].second, atol=1e-5)


def test_distances_are_those_at_single_tokens():
    models, pairs = [random_model("qwen2", seed) for seed in (0, 1)], random_pairs()
    found = shift_norms(causal_model(models[0]), causal_model(models[1]), pairs, token_budget=60)
    assert found.shape == (LAYERS, len(pairs), 3)
    for number, pair in enumerate(pairs):
        for layer in range(LAYERS):
            with torch.inference_mode():
                away = [
                    outputs(models[1], pair.prompt + side)[layer]
                    - outputs(models[0], pair.prompt + side)[layer]
                    for side in pair.sides
                ]
            wanted = [away[0][len(pair.prompt) - 1], away[0][-1], away[1][-1]]
            norms = [np.linalg.norm(one) for one in wanted]
            np.testing.assert_allclose(found[layer, number], norms, rtol=1e-4)
