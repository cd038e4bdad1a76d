"""The LASSO in bulk against scikit-learn, one fit at a time."""

import numpy as np
import pytest
from sklearn.linear_model import ElasticNetCV, LassoCV, lasso_path
from sklearn.model_selection import GroupKFold, KFold
from sklearn.preprocessing import StandardScaler

from actshift.maths.lasso import (
    ALPHAS,
    contiguous_folds,
    cross_validated,
    group_folds,
    moments,
)
from actshift.maths.lasso import lasso_path as paths
from actshift.maths.out_of_fold import out_of_fold, training_means

N, LAYERS = 60, 7
#: scikit-learn's coordinate descent stops at a tolerance; the homotopy is exact.
EXACT = {"tol": 1e-12, "max_iter": 200_000}


def collinear(seed: int, *, noise: float = 0.3, layers: int = LAYERS) -> tuple[np.ndarray, ...]:
    """Features that share a common part, as distances of neighbouring layers do, and a target."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N, 1))
    features = 5.0 + common + noise * rng.normal(size=(N, layers)) * np.arange(1, layers + 1)
    target = 3.0 - 2.0 * features[:, 2] + features[:, 5] + rng.normal(size=N)
    return features, target


def standard(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return StandardScaler().fit_transform(features), target - target.mean()


@pytest.mark.parametrize("seed", range(6))
def test_path_is_that_of_scikit_learn(seed: int) -> None:
    x, y = standard(*collinear(seed, noise=0.1 if seed % 2 else 1.0))
    reference = lasso_path(x, y, alphas=ALPHAS, **EXACT)[1]
    found = paths((x.T @ x / N)[None], (x.T @ y / N)[None], ALPHAS[None])[0]
    np.testing.assert_allclose(found, reference.T, atol=2e-6)


def test_path_meets_the_optimality_conditions_where_features_outnumber_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 20))
    x -= x.mean(axis=0)
    y = rng.normal(size=12)
    y -= y.mean()
    gram, cross = x.T @ x / 12, x.T @ y / 12
    alphas = ALPHAS[ALPHAS > 1e-3]
    for alpha, weights in zip(alphas, paths(gram[None], cross[None], alphas[None])[0], strict=True):
        pull = cross - gram @ weights
        assert np.abs(pull).max() <= alpha * (1 + 1e-6)
        on = weights != 0
        np.testing.assert_allclose(pull[on], alpha * np.sign(weights[on]), rtol=1e-6)


def test_equal_and_constant_features_do_no_harm() -> None:
    features, target = collinear(3)
    features = np.column_stack([features[:, 2], features, np.full(N, 4.0)])
    fit = cross_validated(features, target, contiguous_folds(N, 5)[None])
    alone = cross_validated(features[:, 1:-1], target, contiguous_folds(N, 5)[None])
    assert fit.weights[0, -1] == 0
    assert np.isfinite(fit.weights).all()
    np.testing.assert_allclose(fit.predict(features), alone.predict(features[:, 1:-1]), rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grouped", [False, True])
def test_cross_validation_is_that_of_scikit_learn(seed: int, grouped: bool) -> None:
    features, target = collinear(seed)
    codes = np.random.default_rng(seed).integers(0, 13, N)
    folds = group_folds(codes, 5) if grouped else contiguous_folds(N, 5)
    cv = list(GroupKFold(5).split(features, groups=codes) if grouped else KFold(5).split(features))
    for number, (_, test) in enumerate(cv):
        np.testing.assert_array_equal(np.flatnonzero(folds == number), test)
    x, y = standard(features, target)
    reference = LassoCV(alphas=ALPHAS, cv=cv, **EXACT).fit(x, y)
    found = cross_validated(features, target, folds[None])
    assert found.alpha[0] == pytest.approx(reference.alpha_)
    np.testing.assert_allclose(found.weights[0], reference.coef_, atol=1e-6)
    np.testing.assert_allclose(found.predict(features)[0], reference.predict(x) + target.mean())


def test_elastic_net_is_that_of_scikit_learn() -> None:
    features, target = collinear(1)
    x, y = standard(features, target)
    reference = ElasticNetCV(l1_ratio=0.5, alphas=ALPHAS, cv=KFold(5), **EXACT).fit(x, y)
    found = cross_validated(features, target, contiguous_folds(N, 5)[None], l1_ratio=0.5)
    assert found.alpha[0] == pytest.approx(reference.alpha_)
    np.testing.assert_allclose(found.weights[0], reference.coef_, atol=1e-6)


def test_many_subsets_at_once_are_the_same_one_by_one() -> None:
    features, target = collinear(5)
    rng = np.random.default_rng(0)
    folds = np.full((8, N), -1)
    for row in folds:
        rows = np.sort(rng.permutation(N)[: N // 2])
        row[rows] = contiguous_folds(N // 2, 4 + int(rng.integers(2)))
    found = cross_validated(features, target, folds)
    for number, row in enumerate(folds):
        kept = row >= 0
        x, y = standard(features[kept], target[kept])
        cv = KFold(int(row.max()) + 1)
        reference = LassoCV(alphas=ALPHAS, cv=cv, **EXACT).fit(x, y)
        assert found.alpha[number] == pytest.approx(reference.alpha_)
        np.testing.assert_allclose(found.weights[number], reference.coef_, atol=1e-6)


def test_problems_with_rows_of_their_own_are_the_same_one_by_one() -> None:
    drawn = [collinear(seed) for seed in range(3)]
    features, target = (np.stack(part) for part in zip(*drawn, strict=True))
    folds = np.tile(contiguous_folds(N, 5), (3, 1))
    folds[1, :9] = -1
    found = cross_validated(features, target, folds)
    for number, (x, y) in enumerate(drawn):
        alone = cross_validated(x, y, folds[[number]])
        assert found.alpha[number] == alone.alpha[0]
        np.testing.assert_allclose(found.weights[number], alone.weights[0], atol=1e-9)
        np.testing.assert_allclose(found.predict(features)[number], alone.predict(x)[0])


def test_out_of_fold_predictions_never_saw_their_rows() -> None:
    features, target = collinear(2)
    codes = np.arange(N) % 12
    outer = group_folds(codes, 5)
    inner = np.full((5, N), -1)
    for number in range(5):
        rows = outer != number
        inner[number, rows] = group_folds(codes[rows], 5)
    found = out_of_fold(features[None], target[None], outer, inner)[0]
    mean = training_means(target[None], outer, inner >= 0)[0]
    for number in range(5):
        rows = outer != number
        scaler = StandardScaler().fit(features[rows])
        cv = list(GroupKFold(5).split(features[rows], groups=codes[rows]))
        fit = LassoCV(alphas=ALPHAS, cv=cv, **EXACT)
        fit.fit(scaler.transform(features[rows]), target[rows])
        np.testing.assert_allclose(
            found[~rows], fit.predict(scaler.transform(features[~rows])), rtol=1e-5
        )
        np.testing.assert_allclose(mean[~rows], target[rows].mean())


def test_moments_are_those_of_the_rows() -> None:
    features, target = collinear(0)
    rows = np.arange(N) % 3 == 0
    found = moments(features + 1e3, target - 1e3, rows[None])
    x, y = features[rows] + 1e3, target[rows] - 1e3
    np.testing.assert_allclose(found.gram[0], np.cov(x.T, ddof=0), rtol=1e-9)
    np.testing.assert_allclose(found.mean_x[0], x.mean(axis=0))
    np.testing.assert_allclose((found.mean_y[0], found.variance[0]), (y.mean(), y.var()))
    np.testing.assert_allclose(found.cross[0], (x - x.mean(0)).T @ (y - y.mean()) / rows.sum())


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="fall"):
        paths(np.eye(2)[None], np.ones((1, 2)), np.array([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="two folds"):
        cross_validated(np.ones((4, 1)), np.ones(4), np.zeros((1, 4), dtype=int))
