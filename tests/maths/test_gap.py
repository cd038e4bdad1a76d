"""Kappa against full SVDs, the lemma on random matrices, and its subsamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import calibration as slow

from actshift.maths.gap import KAPPA_THRESHOLD, resampled_kappas, spectral_gap

shapes = st.tuples(st.integers(2, 30), st.integers(1, 12))


def rows_of(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * np.exp(rng.normal(size=shape[1]))


@given(shapes, st.integers(0, 999), st.floats(0.0, 2.0))
@settings(max_examples=100, deadline=None)
def test_kappa_never_exceeds_its_bound(shape: tuple[int, int], seed: int, scale: float) -> None:
    honest, unsafe = rows_of(shape, seed), scale * rows_of(shape, seed + 1)
    gap = spectral_gap(honest, unsafe)
    assert gap.kappa <= gap.bound * (1 + 1e-9)
    assert gap.informative == (gap.rank < 5)
    r, kappa = slow.kappa(honest, unsafe, 0.05)
    assert gap.rank == r
    assert gap.kappa == pytest.approx(kappa, rel=1e-6)


def test_kappa_reaches_its_bound_for_opposite_rank_one_shifts() -> None:
    honest = np.outer(np.ones(6), np.arange(1.0, 5.0))
    gap = spectral_gap(honest, -honest)
    assert gap.rank == 1
    assert gap.kappa == pytest.approx(gap.bound)


def test_equal_shifts_have_no_gap() -> None:
    rows = rows_of((9, 4), 0)
    gap = spectral_gap(rows, rows)
    assert gap.rank == 0
    assert np.isnan(gap.kappa)
    assert not gap.informative


@given(shapes, st.integers(0, 999), st.floats(0.01, 0.5), st.floats(0.0, 3.0), st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_the_lemma_holds_at_every_eps_scale_and_rank(
    shape: tuple[int, int], seed: int, eps: float, scale: float, rank: int
) -> None:
    """kappa <= 2 / (eps r), whatever the two shifts have in common."""
    rng = np.random.default_rng(seed)
    honest = rows_of(shape, seed)
    low = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    gap = spectral_gap(honest, honest + scale * low, eps=eps)
    if gap.rank:
        assert gap.rank <= min(shape)
        assert 0 < gap.kappa <= 2 / (eps * gap.rank) * (1 + 1e-9)
        assert gap.sigma_last**2 <= gap.energy / gap.rank * (1 + 1e-9)
        assert gap.energy <= 2 * (gap.energy_honest + gap.energy_unsafe) * (1 + 1e-9)
    else:
        assert np.isnan(gap.kappa)


def test_a_rank_of_five_or_more_cannot_reach_the_threshold() -> None:
    rng = np.random.default_rng(0)
    for rank in range(1, 9):
        frame = np.linalg.qr(rng.normal(size=(40, rank)))[0]
        honest = frame @ np.linalg.qr(rng.normal(size=(12, rank)))[0].T
        # Opposite shifts of a flat spectrum reach the bound, so this is the largest kappa there is.
        gap = spectral_gap(honest, -honest)
        assert gap.rank == rank
        assert gap.kappa == pytest.approx(40 / rank)
        assert (gap.kappa > KAPPA_THRESHOLD) == gap.informative == (rank < 5)


@given(shapes, st.integers(0, 999), st.floats(0.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_subsamples_equal_the_gap_of_their_rows(
    shape: tuple[int, int], seed: int, scale: float
) -> None:
    honest, unsafe = rows_of(shape, seed), scale * rows_of(shape, seed + 1)
    members = np.random.default_rng(seed).random((4, shape[0])) < 0.6
    members[0], members[1] = True, False
    found = resampled_kappas(honest, unsafe, members)
    assert np.isnan(found[1])
    for kappa, kept in zip(found, members, strict=True):
        if kept.any():
            wanted = spectral_gap(honest[kept], unsafe[kept]).kappa
            assert kappa == pytest.approx(wanted, rel=1e-6)


def test_subsamples_of_equal_shifts_have_no_kappa() -> None:
    rows = rows_of((9, 4), 0)
    assert np.isnan(resampled_kappas(rows, rows, np.ones((2, 9), dtype=bool))).all()
