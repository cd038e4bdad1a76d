import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import spectrum as slow

from actshift.maths.directions import (
    aligned_shift,
    cosine,
    did_mean_algebra,
    did_shift,
    diff_in_means,
    mean_shift,
    naive_shift,
    template_shift,
)
from actshift.maths.spectrum import spectrum


def acts(seed: int, n: int = 12, d: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, d)).astype(np.float32) + i for i in range(4)]


def test_shifts_are_differences_in_float64() -> None:
    tuned_chat, tuned_raw, base_chat, base_raw = acts(0)
    for found, other in (
        (naive_shift(tuned_chat, base_raw), base_raw),
        (template_shift(tuned_chat, base_chat), base_chat),
        (aligned_shift(tuned_chat, tuned_raw), tuned_raw),
    ):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, tuned_chat.astype(np.float64) - other)


def test_did_subtracts_the_control_mean_row() -> None:
    harmful, harmless = np.arange(6.0).reshape(3, 2), np.array([[1.0, 3.0], [3.0, 5.0]])
    np.testing.assert_array_equal(did_shift(harmful, harmless), harmful - [[2.0, 4.0]])


@given(st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_centred_did_is_centred_template(seed: int) -> None:
    harmful, harmless, *_ = acts(seed)
    did = did_shift(harmful, harmless)
    np.testing.assert_allclose(slow.centre(did), slow.centre(harmful), atol=1e-9)
    a, b = (spectrum(rows, centered=True).values for rows in (did, harmful))
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_planted_direction_rises_with_n() -> None:
    rng = np.random.default_rng(0)
    direction = np.eye(200)[0]
    found = [
        cosine(
            diff_in_means(rng.normal(size=(n, 200)) + direction, rng.normal(size=(n, 200))),
            direction,
        )
        for n in (10, 100, 1000, 10000)
    ]
    assert found == sorted(found)
    assert found[0] < 0.5
    assert found[-1] > 0.97


def test_leading_vector_finds_the_planted_direction_as_n_grows() -> None:
    rng = np.random.default_rng(1)
    direction = np.eye(100)[3]
    found = [
        abs(spectrum(rng.normal(size=(n, 100)) + 1.5 * direction, k=1).left[3, 0])
        for n in (10, 100, 1000)
    ]
    assert found == sorted(found)
    assert found[-1] > 0.95


def test_cosine_is_signed_and_undefined_for_zero() -> None:
    a = np.array([1.0, 0.0])
    assert cosine(a, -2 * a) == -1.0
    assert cosine(a, np.array([0.0, 5.0])) == 0.0
    assert np.isnan(cosine(a, np.zeros(2)))


@given(st.integers(0, 99), st.floats(0.01, 3.0))
@settings(max_examples=40, deadline=None)
def test_algebra_of_the_means(seed: int, scale: float) -> None:
    """mean(M_did) = tuned contrast - base contrast, and its cosine needs only ratio and angle."""
    tuned_harmful, tuned_harmless, base_harmful, base_harmless = acts(seed)
    base_harmful = base_harmful * scale
    tuned = diff_in_means(tuned_harmful, tuned_harmless)
    base = diff_in_means(base_harmful, base_harmless)
    did = did_shift(
        template_shift(tuned_harmful, base_harmful), template_shift(tuned_harmless, base_harmless)
    )
    np.testing.assert_allclose(did.mean(axis=0), tuned - base, atol=1e-6)
    found = did_mean_algebra(tuned, base)
    assert found.cos_from_means == pytest.approx(abs(cosine(did.mean(axis=0), tuned)), abs=1e-9)
    q, c = found.base_ratio, found.cos_base
    formula = abs(1 - q * c) / np.sqrt(1 - 2 * q * c + q * q)
    assert found.cos_from_means == pytest.approx(formula, abs=1e-9)


def test_no_base_contrast_means_cosine_one() -> None:
    found = did_mean_algebra(np.array([3.0, 4.0]), np.zeros(2))
    assert (found.cos_from_means, found.base_ratio) == (1.0, 0.0)
    assert np.isnan(did_mean_algebra(np.zeros(2), np.ones(2)).base_ratio)


def test_the_mean_shift_is_the_difference_of_means_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    treated, control = rng.normal(size=(2, 30, 8)).astype(np.float32)
    shift = mean_shift(treated, control)
    assert shift.dtype == np.float64
    np.testing.assert_allclose(shift, diff_in_means(treated, control), atol=1e-14)
