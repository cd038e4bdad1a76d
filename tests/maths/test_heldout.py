import numpy as np
import pytest
from reference import spectrum as slow

from actshift.maths.heldout import (
    HeldoutShares,
    _conditional_energy,
    heldout_energy,
    heldout_shares,
)
from actshift.maths.spectrum import spectrum

D = 40


def planted(n: int, rank: int, seed: int, *, noise: float = 0.0, mean: float = 0.0) -> np.ndarray:
    """Rows in the first `rank` directions of a fixed frame, plus noise and a mean on the first."""
    frame, _ = np.linalg.qr(np.random.default_rng(99).normal(size=(D, D)))
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, rank)) * np.linspace(3, 2, rank)
    scores[:, 0] += mean
    return scores @ frame[:, :rank].T + noise * rng.normal(size=(n, D))


def shares(fit: np.ndarray, heldout: np.ndarray, k: int = 12) -> HeldoutShares:
    names = [f"c{i // 5}" for i in range(len(heldout))]
    left = spectrum(fit, k=k).left
    rng = np.random.default_rng(0)
    return heldout_shares(left, heldout, names, draws=200, range_draws=100, rng=rng)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_energy_is_that_of_the_loops(k: int) -> None:
    fit, heldout = planted(30, 6, 1, noise=0.5), planted(20, 6, 2, noise=0.5)
    found = heldout_energy(spectrum(fit, k=10).left, heldout)
    assert found[k - 1] == pytest.approx(slow.heldout_energy(fit, heldout, k))


def test_shared_directions_carry_all_and_the_knee_counts_them() -> None:
    found = shares(planted(60, 4, 1, noise=0.05), planted(40, 4, 2, noise=0.05))
    assert found.share[3] > 0.99
    assert found.knee == 4


def test_a_dominant_mean_does_not_hide_the_other_directions() -> None:
    found = shares(planted(60, 4, 1, noise=0.05, mean=100), planted(40, 4, 2, noise=0.05, mean=100))
    assert found.share[0] > 0.99
    assert found.knee == 4


def test_unrelated_fit_looks_like_its_null() -> None:
    knees = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = shares(rng.normal(size=(60, D)), rng.normal(size=(40, D)))
        knees.append(found.knee)
        assert found.share[-1] == pytest.approx(found.null[-1], abs=0.08)
    assert np.mean(knees) < 0.5


def test_shuffled_null_is_flat() -> None:
    """Each shuffled direction takes about 1/d of the energy, whatever the fit looked like."""
    found = shares(planted(60, 12, 1, mean=5), np.random.default_rng(2).normal(size=(60, D)))
    np.testing.assert_allclose(np.diff(found.null, prepend=0), 1 / D, atol=0.01)
    np.testing.assert_allclose(found.null, np.arange(1, 13) / D, atol=0.02)


def test_range_over_clusters_encloses_the_share() -> None:
    found = shares(planted(60, 6, 1, noise=1), planted(40, 6, 2, noise=1))
    assert ((found.low <= found.share) & (found.share <= found.high)).all()
    assert (np.diff(found.share) >= 0).all()


def test_conditional_null_is_projection_by_hand() -> None:
    """The algebra of the null gain against explicit projections of one shuffled direction."""
    fit, heldout = planted(30, 6, 1, noise=0.5), planted(20, 6, 2, noise=0.5)
    left = spectrum(fit, k=5).left
    shuffled = left[np.random.default_rng(0).permutation(D)]
    found = _conditional_energy(shuffled.T @ left, heldout @ shuffled, heldout @ left)
    for k in range(5):
        earlier = left[:, :k]
        direction = shuffled[:, k] - earlier @ (earlier.T @ shuffled[:, k])
        direction /= np.linalg.norm(direction)
        rest = heldout - heldout @ earlier @ earlier.T
        assert found[k] == pytest.approx(np.sum((rest @ direction) ** 2))


def test_zero_heldout_shift_has_no_share() -> None:
    found = shares(planted(30, 3, 1), np.zeros((10, D)), k=3)
    assert found.knee == 0
    assert np.isnan(found.share).all()
