"""Frames and energy shares: orthonormal, of the right rank, and what a plain SVD gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.maths.frames import (
    column_shares,
    principal_frame,
    random_frame,
    subset_share,
    unit_column,
    without,
)


def rows(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.linspace(3, 0.2, d) + rng.standard_normal(d)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(0, 12))
def test_a_random_frame_has_unit_norm_and_full_rank(seed, k, more):
    frame = random_frame(k + more, k, np.random.default_rng(seed))
    np.testing.assert_allclose(frame.T @ frame, np.eye(k), atol=1e-12)
    assert np.linalg.matrix_rank(frame) == k


def test_leading_columns_are_the_frame_of_the_leading_gaussian_columns():
    gaussian = np.random.default_rng(3).standard_normal((20, 8))
    whole = random_frame(20, 8, np.random.default_rng(3))
    for k in (1, 3, 8):
        span, _ = np.linalg.qr(gaussian[:, :k])
        np.testing.assert_allclose(whole[:, :k] @ whole[:, :k].T, span @ span.T, atol=1e-12)


def test_random_frames_hold_k_of_d_of_the_energy_and_no_sign_is_preferred():
    rng = np.random.default_rng(0)
    x = rows(1, 30, 16)
    frames = [random_frame(16, 4, rng) for _ in range(600)]
    shares = [column_shares(x, frame).sum() for frame in frames]
    assert np.mean(shares) == pytest.approx(4 / 16, abs=0.02)
    assert np.mean([frame[0, 0] > 0 for frame in frames]) == pytest.approx(0.5, abs=0.08)


def test_a_frame_wider_than_the_space_is_refused():
    with pytest.raises(ValueError, match="5 columns does not fit into 4"):
        random_frame(4, 5, np.random.default_rng(0))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize(("n", "d"), [(9, 24), (40, 12)])
def test_a_principal_frame_is_that_of_the_svd(n, d, centered):
    x = rows(2, n, d)
    frame = principal_frame(x, k=4, centered=centered)
    left, _, _ = np.linalg.svd((x - x.mean(axis=0) if centered else x).T, full_matrices=False)
    np.testing.assert_allclose(np.abs((frame * left[:, :4]).sum(axis=0)), 1.0, atol=1e-9)
    assert all(stride >= 0 for stride in frame.strides)


def test_a_principal_frame_stops_at_the_rank():
    x = rows(3, 30, 2) @ rows(4, 2, 16)
    assert principal_frame(x, k=10).shape == (16, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 5), unique=True, max_size=6))
def test_a_share_is_the_energy_of_the_projection(seed, chosen):
    x = rows(seed, 11, 9)
    frame = random_frame(9, 6, np.random.default_rng(seed))
    columns = np.array(chosen, dtype=int)
    basis = frame[:, columns]
    wanted = np.sum((x @ basis @ basis.T) ** 2) / np.sum(x**2)
    assert subset_share(column_shares(x, frame), columns) == pytest.approx(wanted, abs=1e-12)


def test_all_directions_hold_all_energy_and_nothing_holds_none():
    x = rows(0, 7, 6)
    assert column_shares(x, np.eye(6)).sum() == pytest.approx(1.0)
    assert np.isnan(column_shares(np.zeros((3, 6)), np.eye(6))).all()


def test_what_is_left_without_another_vector_is_orthogonal_to_it():
    v, w = rows(5, 2, 8)
    rest = without(v, w)
    assert rest @ w == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(v - rest, (v @ w) / (w @ w) * w)
    np.testing.assert_array_equal(without(v, np.zeros(8)), v)


def test_a_unit_column_keeps_the_direction_and_zero_has_none():
    column = unit_column(np.array([3.0, 0.0, 4.0]))
    np.testing.assert_allclose(column[:, 0], [0.6, 0.0, 0.8])
    with pytest.raises(ValueError, match="no direction"):
        unit_column(np.zeros(3))
