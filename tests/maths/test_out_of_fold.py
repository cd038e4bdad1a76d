"""Out-of-fold predictions against scikit-learn, one fold at a time."""

import numpy as np
import pytest
from sklearn.linear_model import LassoCV, LinearRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from actshift.maths.intervals import bootstrap_ends
from actshift.maths.lasso import ALPHAS, group_folds
from actshift.maths.out_of_fold import (
    gain_out,
    out_of_fold,
    training_lines,
    training_means,
)
from actshift.maths.resampling import cluster_bootstrap_counts

N, LAYERS, FOLDS = 48, 5, 4
CODES = np.arange(N) % 13
OUTER = group_folds(CODES, FOLDS)


def inner() -> np.ndarray:
    found = np.full((FOLDS, N), -1)
    for fold, own in enumerate(found):
        own[fold != OUTER] = group_folds(CODES[fold != OUTER], 5)
    return found


def drawn(seed: int, problems: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets and covariates that are alike."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 20, size=(N, 3)).astype(float)
    features = 0.2 * lengths[:, :1] + rng.normal(size=(problems, N, LAYERS))
    target = features[:, :, 1] - 0.3 * lengths[:, 1] + rng.normal(size=(problems, N))
    return features, target, lengths


@pytest.mark.parametrize("seed", range(3))
def test_covariates_are_fitted_on_training_rows_and_not_penalised(seed: int) -> None:
    features, target, lengths = drawn(seed)
    found = out_of_fold(features, target, OUTER, inner(), covariates=lengths)
    for problem, fold in np.ndindex(2, FOLDS):
        train, test = fold != OUTER, fold == OUTER
        x, y = features[problem], target[problem]
        to_y = LinearRegression().fit(lengths[train], y[train])
        to_x = LinearRegression().fit(lengths[train], x[train])
        left_x, left_y = x - to_x.predict(lengths), y - to_y.predict(lengths)
        scaler = StandardScaler().fit(left_x[train])
        cv = list(GroupKFold(5).split(x[train], groups=CODES[train]))
        fit = LassoCV(alphas=ALPHAS, cv=cv, tol=1e-12, max_iter=200_000)
        fit.fit(scaler.transform(left_x[train]), left_y[train])
        wanted = to_y.predict(lengths[test]) + fit.predict(scaler.transform(left_x[test]))
        np.testing.assert_allclose(found[problem, test], wanted, rtol=1e-5)


def test_each_problem_is_that_of_itself_alone() -> None:
    features, target, lengths = drawn(4)
    both = out_of_fold(features, target, OUTER, inner(), covariates=lengths, l1_ratio=0.5)
    for problem in range(2):
        alone = out_of_fold(
            features[[problem]],
            target[[problem]],
            OUTER,
            inner(),
            covariates=lengths,
            l1_ratio=0.5,
        )
        np.testing.assert_allclose(both[problem], alone[0], rtol=1e-9)


def test_features_that_covariates_hold_add_nothing() -> None:
    _, target, lengths = drawn(5)
    spanned = np.stack([lengths @ np.ones((3, LAYERS)) + 7.0] * 2)
    found = out_of_fold(spanned, target, OUTER, inner(), covariates=lengths)
    lines = training_lines(lengths, target, inner() >= 0)[:, OUTER, np.arange(N)]
    np.testing.assert_allclose(found, lines, rtol=1e-9)


def test_lines_are_those_of_least_squares_and_leave_constant_covariates_out() -> None:
    _, target, lengths = drawn(6)
    training = inner() >= 0
    constant = np.column_stack([lengths, np.full(N, 15.0)])
    found = training_lines(constant, target, training)
    for fold, rows in enumerate(training):
        reference = LinearRegression().fit(lengths[rows], target[:, rows].T)
        np.testing.assert_allclose(found[:, fold], reference.predict(lengths).T, rtol=1e-9)


def test_gain_and_its_interval_are_those_of_a_loop() -> None:
    features, target, _ = drawn(7)
    after = out_of_fold(features, target, OUTER, inner())
    means = training_means(target, OUTER, inner() >= 0)
    names = CODES.astype(str)
    weights = cluster_bootstrap_counts(list(names), draws=300, rng=np.random.default_rng(0))
    found = gain_out(target, means, after, means, weights, clusters=13)
    for problem in range(2):
        y, wrong = target[problem], (target[problem] - after[problem]) ** 2
        base = np.array([(y[i] - y[OUTER[i] != OUTER].mean()) ** 2 for i in range(N)])
        assert found[problem, 0] == pytest.approx(1 - wrong.sum() / base.sum())
        draws = []
        for counts in weights:
            rows = np.repeat(np.arange(N), counts)
            draws.append(1 - wrong[rows].sum() / base[rows].sum())
        ends = bootstrap_ends(np.array([draws]), clusters=13)[0]
        np.testing.assert_allclose(found[problem, 1:], ends)


def test_no_support_gains_exactly_nothing_and_a_constant_target_has_no_gain() -> None:
    _, target, _ = drawn(8)
    target[1] = 3.0
    means = training_means(target, OUTER, inner() >= 0)
    weights = cluster_bootstrap_counts(
        [str(c) for c in CODES], draws=50, rng=np.random.default_rng(0)
    )
    found = gain_out(target, means, means * (1 + 1e-15), means, weights, clusters=13)
    assert found[0].tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(found[1]).all()
