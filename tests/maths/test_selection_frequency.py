"""Selection frequencies against scikit-learn, and permutations that keep clusters whole."""

import numpy as np
import pytest
from sklearn.linear_model import LassoCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from actshift.maths import out_of_fold as bulk
from actshift.maths.lasso import ALPHAS, contiguous_folds, cross_validated, group_folds
from actshift.maths.out_of_fold import permuted_target, selection_frequency
from actshift.maths.resampling import half_samples

N, LAYERS = 40, 6
CODES = np.append(np.arange(36), np.arange(4))


def halves(draws: int) -> np.ndarray:
    members = half_samples([str(c) for c in CODES], draws=draws, rng=np.random.default_rng(3))
    folds = np.full(members.shape, -1)
    for own, rows in zip(folds, members, strict=True):
        own[rows] = group_folds(CODES[rows], 5)
    return folds


def drawn(seed: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N, 1)) + rng.normal(size=(N, LAYERS))
    return features, signal * features[:, 2] + rng.normal(size=N)


def test_frequency_is_the_share_of_scikit_learns_supports() -> None:
    features, target = drawn(0, 0.5)
    folds = halves(12)
    count = np.zeros(LAYERS)
    for own in folds:
        rows = own >= 0
        x = StandardScaler().fit_transform(features[rows])
        cv = list(GroupKFold(5).split(x, groups=CODES[rows]))
        fit = LassoCV(alphas=ALPHAS, cv=cv, tol=1e-12, max_iter=200_000)
        count += np.abs(fit.fit(x, target[rows]).coef_) > 1e-9
    np.testing.assert_allclose(selection_frequency(features, target[None], folds)[0], count / 12)


def test_targets_in_bulk_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features, target = drawn(1, 0.5)
    targets = permuted_target(target, CODES, draws=5, rng=np.random.default_rng(0))
    folds = halves(9)
    together = selection_frequency(features, targets, folds)
    monkeypatch.setattr(bulk, "_AT_ONCE", 2 * 9 * LAYERS)
    np.testing.assert_array_equal(together, selection_frequency(features, targets, folds))
    for own, row in zip(targets, together, strict=True):
        np.testing.assert_array_equal(selection_frequency(features, own[None], folds)[0], row)


def test_fewer_halves_make_the_null_larger_not_smaller() -> None:
    features, target = drawn(2, 0.0)
    targets = permuted_target(target, CODES, draws=40, rng=np.random.default_rng(0))
    few, many = (selection_frequency(features, targets, halves(n)).max(axis=1) for n in (20, 200))
    assert few.mean() > many.mean()


def test_permutation_moves_whole_clusters_of_one_size() -> None:
    codes = np.array([0, 1, 0, 2, 1, 2, 3, 4, 5])
    target = np.arange(9.0)
    values = {frozenset(target[codes == code]) for code in range(6)}
    found = permuted_target(target, codes, draws=60, rng=np.random.default_rng(0))
    assert len({row.tobytes() for row in found}) > 40
    for row in found:
        assert {frozenset(row[codes == code]) for code in range(6)} == values
    # Every cluster goes to every place of its size.
    assert {frozenset(row[codes == 0]) for row in found} == {v for v in values if len(v) == 2}
    assert {row[codes == 3][0] for row in found} == {6.0, 7.0, 8.0}


def test_clusters_of_other_sizes_exchange_means_and_keep_their_spread() -> None:
    codes = np.array([0, 1, 1, 2, 2, 2])
    target = np.array([10.0, 1.0, 3.0, -5.0, -4.0, 0.0])
    found = permuted_target(target, codes, draws=80, rng=np.random.default_rng(0))
    spread = [np.sort(target[codes == c] - target[codes == c].mean()) for c in range(3)]
    orders = set()
    for row in found:
        means = tuple(round(float(row[codes == c].mean()), 9) for c in range(3))
        assert set(means) == {10.0, 2.0, -3.0}
        orders.add(means)
        for code in range(3):
            own = row[codes == code]
            np.testing.assert_allclose(np.sort(own - own.mean()), spread[code], atol=1e-12)
    assert len(orders) == 6


def test_the_one_odd_cluster_joins_those_nearest_in_size() -> None:
    codes = np.array([0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5])
    target = np.arange(11.0) ** 2
    found = permuted_target(target, codes, draws=100, rng=np.random.default_rng(0))
    assert len({round(float(row[codes == 4].mean()), 9) for row in found}) == 3
    singles = {tuple(sorted(row[:3])) for row in found}
    assert singles == {(0.0, 1.0, 4.0)}


def test_noise_often_leaves_exactly_one_layer_under_the_published_protocol() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 80, 1)) + rng.normal(size=(200, 80, 16))
    folds = np.tile(contiguous_folds(80, 5), (200, 1))
    support = (cross_validated(features, rng.normal(size=(200, 80)), folds).weights != 0).sum(
        axis=1
    )
    assert 0.55 < (support == 0).mean() < 0.85
    assert 0.04 < (support == 1).mean() < 0.2
