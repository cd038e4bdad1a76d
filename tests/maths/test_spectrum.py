import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import spectrum as slow

from actshift.maths.spectrum import (
    ResampledRanks,
    cumulative_shares,
    double_centre,
    entropy_rank,
    gram,
    rank_eps,
    spectrum,
    stable_rank,
)

SHAPES = [(7, 40), (40, 7), (20, 20), (1, 9), (9, 1)]
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def designed(n: int, d: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """A matrix with exactly these singular values."""
    rng = np.random.default_rng(seed)
    k = len(values)
    left, _ = np.linalg.qr(rng.normal(size=(n, k)))
    right, _ = np.linalg.qr(rng.normal(size=(d, k)))
    return (left * values) @ right.T


def matrix(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("shape", [(60, 300), (300, 60), (80, 80)])
def test_agrees_with_a_full_svd_down_to_a_millionth(shape: tuple[int, int]) -> None:
    rows = designed(*shape, np.logspace(3, -5, 60))
    exact = slow.singular_values(rows)
    kept = exact > 1e-6 * exact[0]
    assert kept.sum() > 40
    np.testing.assert_allclose(spectrum(rows).values[kept[: min(shape)]], exact[kept], rtol=1e-6)


def test_float32_input_is_accumulated_in_float64() -> None:
    rows = designed(50, 200, np.logspace(3, -2, 50)).astype(np.float32)
    exact = slow.singular_values(rows)
    np.testing.assert_allclose(spectrum(rows).values, exact, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_left_vectors_are_those_of_a_full_svd(shape: tuple[int, int]) -> None:
    rows = matrix(shape, 1)
    found = spectrum(rows, k=min(shape))
    _, _, exact = np.linalg.svd(rows, full_matrices=False)
    assert found.left.shape == (shape[1], min(shape))
    overlap = np.abs(np.sum(found.left * exact.T, axis=0))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-9)


def test_left_vectors_stay_orthonormal_in_the_tail() -> None:
    found = spectrum(designed(40, 200, np.logspace(0, -5.5, 40)), k=40)
    np.testing.assert_allclose(found.left.T @ found.left, np.eye(40), atol=1e-9)


@given(shapes, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_centred_spectrum_is_that_of_the_centred_matrix(shape: tuple[int, int], seed: int) -> None:
    rows = matrix(shape, seed) + 3.0
    exact = slow.singular_values(slow.centre(rows))
    np.testing.assert_allclose(spectrum(rows, centered=True).values, exact, atol=1e-9)


def test_centred_noise_of_a_constant_matrix_is_zero() -> None:
    rows = np.full((9, 30), 0.1) * np.pi
    found = spectrum(rows, k=3, centered=True)
    assert rank_eps(found.values) == 0
    assert found.left.shape == (30, 0)


@pytest.mark.parametrize("k", [1, 4, 10])
@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_known_rank_is_recovered(k: int, shape: tuple[int, int]) -> None:
    values = spectrum(designed(*shape, np.ones(k))).values
    assert rank_eps(values, 1e-9) == k
    assert stable_rank(values) == pytest.approx(k)
    assert entropy_rank(values) == pytest.approx(k, rel=1e-4)


def test_zero_matrix_has_rank_zero() -> None:
    found = spectrum(np.zeros((4, 6)), k=2)
    assert rank_eps(found.values) == 0
    assert (stable_rank(found.values), entropy_rank(found.values)) == (0.0, 0.0)
    assert np.isnan(cumulative_shares(found.values)).all()
    assert found.left.shape == (6, 0)


@given(shapes, st.integers(0, 99), st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=40, deadline=None)
def test_rank_eps_counts_like_the_loop(shape: tuple[int, int], seed: int, eps: float) -> None:
    rows = matrix(shape, seed)
    assert rank_eps(spectrum(rows).values, eps) == slow.rank_eps(rows, eps)


def test_tied_shares_count_as_reached() -> None:
    assert rank_eps(np.ones(20), 0.05) == 19
    assert rank_eps(np.ones(10), 0.3) == 7


@given(st.integers(0, 99), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_ranks_do_not_see_rotation_or_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(12, 8)) * np.logspace(0, -2, 8)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    plain, turned = spectrum(rows).values, spectrum(scale * rows @ rotation).values
    assert rank_eps(plain) == rank_eps(turned)
    assert stable_rank(plain) == pytest.approx(stable_rank(turned))
    assert entropy_rank(plain) == pytest.approx(entropy_rank(turned))


def test_gram_of_small_singular_values_would_fail_in_float32() -> None:
    """Why float64: the float32 Gram of the same matrix loses a quarter of the spectrum."""
    rows = designed(40, 200, np.logspace(0, -5, 40)).astype(np.float32)
    single = np.sqrt(np.clip(np.linalg.eigvalsh(rows @ rows.T), 0, None))[::-1]
    exact = slow.singular_values(rows)
    assert np.mean(np.abs(single / exact - 1) > 0.01) > 0.25
    assert np.max(np.abs(spectrum(rows).values / exact - 1)) < 1e-6


def test_double_centring_is_centring() -> None:
    rows = matrix((9, 30), 2) + 5
    weights = np.arange(1.0, 10.0)
    mean = weights @ rows / weights.sum()
    expected = (rows - mean) @ (rows - mean).T
    np.testing.assert_allclose(double_centre(gram(rows), weights), expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(14, 40), (40, 14), (20, 20)])
@pytest.mark.parametrize("centered", [False, True])
def test_resampled_ranks_are_those_of_the_resamples(shape: tuple[int, int], centered: bool) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=shape) * np.logspace(0, -1.5, shape[1]) + 0.3
    counts = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=15)
    samples = [slow.repeated_rows(rows, draw) for draw in counts]
    expected = [slow.rank_eps(slow.centre(x) if centered else x, 0.05) for x in samples]
    found = ResampledRanks(rows).ranks(counts, eps=0.05, centered=centered)
    np.testing.assert_array_equal(found, expected)


def test_an_empty_draw_has_no_rank() -> None:
    ranks = ResampledRanks(matrix((5, 8), 0)).ranks(np.zeros((1, 5), dtype=bool))
    assert np.isnan(ranks).all()
