"""Effective number, centre of mass and probes against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from actshift.maths.attribution import centre_of_mass, effective_number, probes, unit_depths


def test_effective_number_of_known_spreads() -> None:
    one, even = np.eye(8)[3] * 5.0, np.full(8, 0.2)
    half = np.array([1.0, 1.0, 1.0, 1.0, 0.0, -9.0, 0.0, 0.0])
    found = effective_number(np.stack([one, even, half, -even]))
    np.testing.assert_allclose(found[:3], [1.0, 8.0, 4.0])
    assert np.isnan(found[3])


def test_a_linear_ramp_is_three_quarters_of_all_units() -> None:
    """(sum i)^2 / sum i^2 tends to 3 U / 4."""
    ramp = np.arange(1.0, 401.0)
    assert effective_number(ramp) / 400 == pytest.approx(0.75, abs=0.005)


def test_effective_number_has_no_units() -> None:
    effects = np.random.default_rng(0).normal(size=(5, 8))
    np.testing.assert_allclose(effective_number(effects), effective_number(1e6 * effects))


def test_centre_of_mass_is_a_weighted_mean_of_what_is_positive() -> None:
    effects = np.random.default_rng(1).normal(size=(20, 8))
    depths = unit_depths(6)
    for row, found in zip(effects, centre_of_mass(effects, depths), strict=True):
        kept = [(value, at) for value, at in zip(row, depths, strict=True) if value > 0]
        total = sum(value for value, _ in kept)
        assert found == pytest.approx(sum(value * at for value, at in kept) / total)
    assert np.isnan(centre_of_mass(-np.ones((1, 8)), depths)[0])


@pytest.mark.parametrize("layers", [1, 4, 16])
def test_depths_are_symmetric(layers: int) -> None:
    depths = unit_depths(layers)
    np.testing.assert_allclose(depths + depths[::-1], 1.0)
    assert centre_of_mass(np.ones(layers + 2), depths) == pytest.approx(0.5)


def test_probes_are_weighted_least_squares() -> None:
    rng = np.random.default_rng(2)
    features, weights = rng.normal(size=(30, 4)) + 1e3, rng.integers(0, 3, (5, 30))
    target = features[:, 1] + rng.normal(size=30) - 1e3
    found = probes(features, target, weights)
    for draw, counts in enumerate(weights):
        for layer in range(4):
            x = features[:, [layer]]
            line = LinearRegression().fit(x, target, counts)
            assert found.slope[draw, layer] == pytest.approx(line.coef_[0], rel=1e-6)
            assert found.intercept[draw, layer] == pytest.approx(line.intercept_, rel=1e-6)
            assert found.r2[draw, layer] == pytest.approx(line.score(x, target, counts), abs=1e-9)


def test_a_flat_feature_has_no_line() -> None:
    found = probes(np.full((9, 1), 2.0), np.arange(9.0), np.ones(9))
    assert np.isnan(found.slope).all()
    assert np.isnan(found.r2).all()
