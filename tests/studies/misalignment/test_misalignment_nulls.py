"""Nulls and relatives of a direction, the coefficient of the verdict, and scales of equal KL."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.maths.directions import cosine
from actshift.prompts.records import Prompt
from actshift.prompts.splits import HeldoutLeakError
from actshift.studies.misalignment.choose import TOLERANCE, chosen_coeff, equal_kl
from actshift.studies.misalignment.kinds import NULLS
from actshift.studies.misalignment.lanes import (
    LayerStates,
    null_draws,
    orthogonalised,
    rescaled,
)

D, PROMPTS, CLUSTERS, DRAWS = 24, 30, 10, 400


def prompts(n: int, split: str = "select") -> list[Prompt]:
    return [Prompt(f"{split}{i}", "t", "noncode", "a", str(i), split, "s") for i in range(n)]  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def states() -> LayerStates:
    rng = np.random.default_rng(0)
    # Activations live in 6 of 24 dimensions.
    chat = rng.standard_normal((PROMPTS, 6)) @ rng.standard_normal((6, D))
    adapter = chat + 0.2 * rng.standard_normal((PROMPTS, 6)) @ rng.standard_normal((6, D)) + 1
    cluster = np.repeat(np.arange(CLUSTERS), PROMPTS // CLUSTERS)
    return LayerStates(chat.astype(np.float32), adapter.astype(np.float32), cluster)


def draws_of(name: str, states: LayerStates, n: int = DRAWS, **other: int) -> np.ndarray:
    return null_draws(name, states.direction, states, draws=n, **{"seed": 0, "layer": 2, **other})


@pytest.mark.parametrize("name", NULLS)
def test_draws_have_the_norm_of_v_and_a_seed_of_their_own(name, states):
    found = draws_of(name, states)
    norm = np.linalg.norm(states.direction)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), norm, rtol=1e-9)
    np.testing.assert_allclose(draws_of(name, states, 5), found[:5], rtol=1e-6)
    for other in ({"seed": 1}, {"layer": 3}):
        assert np.abs(draws_of(name, states, **other) - found).max() > 0.01


def test_what_each_null_is_made_of(states):
    v = states.direction
    found = {name: draws_of(name, states) for name in NULLS}
    np.testing.assert_allclose(found["orthogonal"] @ v, 0, atol=1e-9)
    assert np.abs(found["random"] @ v).max() > 0.1
    span = states.adapter - states.adapter.mean(axis=0)
    axes = np.linalg.svd(span.astype(np.float64))[2][:12]
    outside = found["random_span"] - found["random_span"] @ axes.T @ axes
    np.testing.assert_allclose(outside, 0, atol=1e-4)
    # Isotropic: no direction is preferred; in the span the energy lies where activations vary.
    energy = np.linalg.eigvalsh(np.cov(found["random"].T))
    assert energy.max() / energy.min() < 4


def test_a_shuffled_draw_exchanges_clusters_and_is_not_v_again():
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(CLUSTERS), PROMPTS // CLUSTERS)
    chat = rng.standard_normal((PROMPTS, D))
    # What all questions have in common is far larger than what sets them apart.
    adapter = chat + 10 * rng.standard_normal(D) + rng.standard_normal((PROMPTS, D))
    states = LayerStates(chat, adapter, cluster)
    v = states.direction
    left = np.array([(states.shifts[cluster == c] - v).sum(axis=0) for c in range(CLUSTERS)])
    draws = draws_of("shuffled", states, 50)
    for draw in draws:
        # The sums of all clusters add up to nothing, so weights are known up to a constant.
        weights = np.linalg.lstsq(left.T, draw, rcond=1e-9)[0]
        steps = (weights - weights.min()) / np.ptp(weights)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert np.abs([cosine(draw, v) for draw in draws]).max() < 0.7
    assert len({tuple(np.sign(draw)) for draw in draws}) > 40


def test_a_relative_loses_its_part_along_v_and_keeps_its_norm(states):
    rng = np.random.default_rng(1)
    relative = states.direction + 0.1 * rng.standard_normal(D)
    left = orthogonalised(relative, states.direction)
    assert abs(cosine(left, states.direction)) < 1e-9
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(relative))
    assert cosine(relative, states.direction) > 0.8
    with pytest.raises(ValueError, match="no direction"):
        rescaled(np.zeros((1, D)), 1.0)


def test_the_coefficient_is_the_smallest_that_reaches_half_of_the_best_gain():
    plain = np.zeros(8, dtype=bool)

    def share(k: int) -> np.ndarray:
        return np.arange(8) < k

    rates = {1.5: share(5), 0.25: share(2), 1.0: share(6), 0.5: share(3)}
    assert chosen_coeff(rates, plain, prompts(8)) == 0.5
    assert chosen_coeff(rates, share(1), prompts(8)) == 1.0  # gains 1, 2, 5, 4
    # Where nothing gains: the published one, whatever loses least.
    assert chosen_coeff({1.0: share(0), 0.5: share(0)}, plain, prompts(8)) == 1.0
    assert chosen_coeff({1.0: share(2), 0.5: share(3)}, share(6), prompts(8)) == 1.0
    assert chosen_coeff({1.5: share(2), 0.25: share(3)}, share(6), prompts(8)) == 1.5


def test_a_gain_of_exactly_half_of_the_best_is_chosen_whatever_there_was_before():
    for size, before in ((n, k) for n in range(3, 40) for k in range(n - 2)):
        repaired = {0.5: np.arange(size) < before + 1, 1.0: np.arange(size) < before + 2}
        assert chosen_coeff(repaired, np.arange(size) < before, prompts(size)) == 0.5


def test_a_held_out_prompt_may_not_choose():
    leaked = [*prompts(2), *prompts(1, "heldout")]
    with pytest.raises(HeldoutLeakError, match="heldout0"):
        chosen_coeff({1.0: np.ones(3, dtype=bool)}, np.zeros(3, dtype=bool), leaked)
    with pytest.raises(HeldoutLeakError, match="heldout0"):
        equal_kl(lambda _, scale: scale, np.ones(1), leaked, max_scale=8.0)


@given(
    weight=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    power=st.floats(1, 4),
    ceiling=st.floats(0.5, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_scales_of_equal_divergence_are_found_or_called_unmatched(weight, power, ceiling, seed):
    rates = np.array(weight)
    target = np.random.default_rng(seed).uniform(1e-3, 20, size=len(rates))

    def divergence(places: np.ndarray, scale: np.ndarray) -> np.ndarray:
        # Rises and levels off, as a distribution that is driven to one token does.
        raw = rates[places] * scale**power
        return ceiling * raw / (ceiling + raw)

    found = equal_kl(divergence, target, prompts(3), max_scale=8.0)
    every = np.arange(len(rates))
    reachable = divergence(every, np.full(len(rates), 8.0)) >= target
    assert (found.matched | ~reachable).all()
    np.testing.assert_allclose(divergence(every, found.scale), found.kl)
    close = np.abs(found.kl - target) <= TOLERANCE * target * 1.0001
    np.testing.assert_array_equal(close, found.matched)
    assert (found.scale[~found.matched] == 8.0).all()


def test_few_evaluations_are_needed():
    calls = []

    def divergence(places: np.ndarray, scale: np.ndarray) -> np.ndarray:
        calls.append(len(places))
        return np.log1p(np.exp(3 * scale - 4)) - np.log1p(np.exp(-4))

    target = np.linspace(0.05, 4, 40)
    assert equal_kl(divergence, target, prompts(3), max_scale=8.0).matched.all()
    assert len(calls) < 14
    assert sum(calls) < 8 * len(target)
