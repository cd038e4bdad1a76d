"""Inversion and monotonicity tests on planted orders, simulated nulls and known directions."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from actshift.maths.ordering import (
    STABLE_COSINE,
    inversion_test,
    monotonicity_test,
    order_tau,
    self_cosine,
)

CLUSTERS, SIZE = 16, 5
NAMES = [f"c{i // SIZE}" for i in range(CLUSTERS * SIZE)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def outcomes(rates: list[float], seed: int = 0, spread: float = 0.15) -> np.ndarray:
    """0/1 outcomes [row, prompt] whose clusters shift the rate of each row on their own."""
    draw = rng(seed)
    noise = spread * draw.standard_normal((len(rates), CLUSTERS))
    p = np.clip(np.array(rates)[:, None] + noise, 0, 1)
    return (draw.random((len(rates), CLUSTERS * SIZE)) < np.repeat(p, SIZE, axis=1)).astype(float)


def inversions(effects: np.ndarray, stable: list[bool] | None = None) -> list:
    kept = np.array(stable if stable is not None else [True] * len(effects))
    return inversion_test(effects, kept, NAMES, draws=999, rng=rng())


def test_a_planted_inversion_is_found_and_named() -> None:
    found = inversions(outcomes([0.1, 0.1, 0.8]))
    assert [(one.earlier, one.later) for one in found] == [(0, 1), (0, 2), (1, 2)]
    assert [one.exceeds for one in found] == [False, True, True]
    clear = found[1]
    assert clear.difference == pytest.approx(0.7, abs=0.15)
    assert 0 < clear.low < clear.difference < clear.high
    assert clear.p < clear.p_holm < 0.05


def test_falling_effects_have_no_inversion() -> None:
    found = inversions(outcomes([0.9, 0.5, 0.1]))
    assert not any(one.exceeds for one in found)
    assert all(one.high < 0.05 for one in found)


def test_a_difference_below_the_margin_does_not_count() -> None:
    """Every prompt rises by 4 points: certain, and too small."""
    effects = np.stack([np.full(80, 0.2), np.full(80, 0.24)])
    assert not inversions(effects)[0].exceeds
    assert inversions(np.stack([effects[0], effects[0] + 0.06]))[0].exceeds


def test_unstable_directions_are_not_compared() -> None:
    found = inversions(outcomes([0.1, 0.8, 0.9]), [True, False, True])
    assert [(one.earlier, one.later) for one in found] == [(0, 2)]
    assert inversions(outcomes([0.1, 0.9]), [True, False]) == []


def test_equal_effects_rarely_give_an_inversion() -> None:
    """Six equal directions, 15 pairs: family-wise 5 % over 100 simulations."""
    alarms = [
        any(
            one.exceeds
            for one in inversion_test(
                outcomes([0.5] * 6, seed), np.ones(6, dtype=bool), NAMES, draws=999, rng=rng(seed)
            )
        )
        for seed in range(100)
    ]
    assert np.mean(alarms) <= 0.07


def test_a_curve_that_rises_again_is_not_monotone() -> None:
    curve = monotonicity_test(outcomes([0.9, 0.2, 0.8, 0.1]), NAMES, draws=999, rng=rng())
    assert [(one.earlier, one.later) for one in curve if one.exceeds] == [(1, 2)]
    falling = monotonicity_test(outcomes([0.9, 0.6, 0.3, 0.0]), NAMES, draws=999, rng=rng())
    assert not any(one.exceeds for one in falling)


def test_correction_costs_more_pairs_more() -> None:
    effects = outcomes([0.3, 0.55])
    alone = inversions(effects)[0]
    more = np.concatenate([effects, outcomes([0.3] * 5, seed=9)])
    among = next(one for one in inversions(more) if (one.earlier, one.later) == (0, 1))
    assert among.difference == alone.difference
    assert among.low < alone.low
    assert among.high > alone.high
    assert among.p_holm > alone.p_holm


def test_tau_is_one_for_variance_order() -> None:
    falling = np.array([[3.0, 5.0], [2.0, 2.0], [1.0, 0.0]])
    assert order_tau(falling) == pytest.approx(1)
    assert order_tau(falling[::-1]) == pytest.approx(-1)
    assert np.isnan(order_tau(np.ones((3, 2))))
    assert np.isnan(order_tau(np.ones((1, 2))))
    mixed = np.array([[1.0], [4.0], [2.0], [0.0]])
    assert order_tau(mixed) == pytest.approx(kendalltau([4, 3, 2, 1], mixed[:, 0]).statistic)


def test_close_singular_values_have_no_definite_directions() -> None:
    """Values 10 and 5 stand clear; three equal ones turn freely in their span."""
    draw = rng(2)
    left, _ = np.linalg.qr(draw.standard_normal((80, 5)))
    right, _ = np.linalg.qr(draw.standard_normal((20, 5)))
    shift = (left * np.array([10.0, 5.0, 1.0, 1.0, 1.0])) @ right.T
    found = self_cosine(shift, NAMES, k=5, draws=40, rng=rng())
    assert (found[:2] >= STABLE_COSINE).all()
    assert (found[2:] < STABLE_COSINE).all()


def test_a_direction_that_resamples_lack_is_not_stable() -> None:
    """The second direction lives in one cluster: absent from over a third of the resamples."""
    shift = np.zeros((80, 4))
    shift[:, 0] = 3.0
    shift[:SIZE, 1] = 1.0
    found = self_cosine(shift, NAMES, k=3, draws=60, rng=rng(1))
    assert found[0] > 0.99
    assert found[2] == 0
