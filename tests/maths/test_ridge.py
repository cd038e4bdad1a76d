"""Ridge maps: a rotation is recovered, every penalty and fold equals the direct solution."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from actshift.maths.directions import cosine
from actshift.maths.lasso import group_folds
from actshift.maths.ridge import (
    PENALTIES,
    chosen_penalty,
    factored,
    folded,
    held_out,
    isometric,
    low_rank,
    refitted,
    ridge_map,
    row_weights,
    shuffled_orders,
    shuffled_r2,
    squared_errors,
    sums_of,
)

N, WIDE, CLUSTERS, FOLDS = 120, 12, 20, 4
CODES = np.arange(N) % CLUSTERS
NAMES = [f"noun-{code:02d}" for code in CODES]
FOLD = group_folds(CODES, FOLDS)
SHAPES = [(N, WIDE, 9), (40, 60, 9), (40, 12, 70)]


def rotation(width: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def two_views(seed: int, *, rows: int = N, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """One space seen in two bases, with means of their own."""
    rng = np.random.default_rng(seed)
    space = rng.normal(size=(rows, WIDE)) * np.linspace(3, 0.5, WIDE)
    a, b = (space @ rotation(WIDE, rng) + rng.normal(size=WIDE) for _ in range(2))
    return a + noise * rng.normal(size=a.shape), b + noise * rng.normal(size=b.shape)


def noise_of(rows: int, d_source: int, d_target: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    source = rng.normal(size=(rows, d_source)) + 4.0
    target = source @ rng.normal(size=(d_source, d_target)) + 3 * rng.normal(size=(rows, d_target))
    return source, target


@pytest.mark.parametrize(("rows", "d_source", "d_target"), SHAPES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty_is_the_direct_solution(
    rows: int, d_source: int, d_target: int, penalty: float
) -> None:
    source, target = noise_of(rows, d_source, d_target)
    fit = factored(source)
    alpha = penalty * np.square(source - source.mean(axis=0)).sum() / rows
    wanted = Ridge(alpha=alpha, solver="svd").fit(source, target).coef_.T
    np.testing.assert_allclose(ridge_map(fit, target, penalty), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("rows", "d_source", "d_target"), SHAPES)
def test_primal_and_dual_forms_agree(rows: int, d_source: int, d_target: int) -> None:
    source, target = noise_of(rows, d_source, d_target)
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    alpha = 0.3 * np.square(x).sum() / rows
    primal = np.linalg.solve(x.T @ x + alpha * np.eye(d_source), x.T @ y)
    dual = x.T @ np.linalg.solve(x @ x.T + alpha * np.eye(rows), y)
    found = ridge_map(factored(source), target, 0.3)
    np.testing.assert_allclose(found, primal, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(found, dual, rtol=1e-8, atol=1e-11)


def test_without_a_penalty_it_is_least_squares() -> None:
    source, target = noise_of(*SHAPES[0])
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    wanted = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(ridge_map(factored(source), target, 0.0), wanted, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_two_rotations_of_one_space(seed: int) -> None:
    source, target = two_views(seed)
    rows = folded(source, FOLD)
    judged = held_out(rows, target)
    assert judged.r2 > 0.99
    low, high = judged.interval(NAMES, draws=500, rng=np.random.default_rng(0))
    assert low < judged.r2 < high <= 1
    penalty = chosen_penalty(rows, target)
    matrix = ridge_map(rows.whole, target, penalty)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(WIDE), atol=0.05)
    # A direction of the source is a difference of rows; its image is that of the same rows.
    direction = source[0] - source[1]
    assert cosine(direction @ matrix, target[0] - target[1]) > 0.999


def test_shuffled_pairing_predicts_nothing() -> None:
    source, target = two_views(1)
    rng = np.random.default_rng(3)
    null = shuffled_r2(folded(source, FOLD), target, shuffled_orders(NAMES, draws=40, rng=rng))
    assert np.median(null) <= 0.01
    assert null.max() < 0.1


def test_shuffled_pairing_is_the_same_code_on_permuted_rows() -> None:
    source, target = noise_of(*SHAPES[2])
    names = NAMES[: len(source)]
    rows = folded(source, group_folds(CODES[: len(source)], FOLDS))
    orders = shuffled_orders(names, draws=3, rng=np.random.default_rng(3))
    alone = [held_out(rows, target[order]).r2 for order in orders]
    np.testing.assert_allclose(shuffled_r2(rows, target, orders), alone, rtol=1e-9, atol=1e-12)


def test_clusters_stay_together_and_their_rows_are_shuffled() -> None:
    names = np.array(sorted(NAMES))
    orders = shuffled_orders(names.tolist(), draws=200, rng=np.random.default_rng(0))
    assert all(sorted(order) == list(range(N)) for order in orders)
    # Equal sizes: whole clusters meet whole clusters.
    met = names[orders].reshape(200, CLUSTERS, -1)
    assert (met == met[:, :, :1]).all()
    # Neither clusters nor places inside them keep their partner more often than by chance.
    size = N // CLUSTERS
    assert (met[:, :, 0] == names[::size]).mean() == pytest.approx(1 / CLUSTERS, abs=0.02)
    assert (orders % size == np.arange(N) % size).mean() == pytest.approx(1 / size, abs=0.02)


def test_pairing_follows_clusters_in_any_row_order() -> None:
    orders = shuffled_orders(NAMES, draws=50, rng=np.random.default_rng(0))
    met = np.array(NAMES)[orders]
    for name in set(NAMES):
        assert all(len(set(row)) == 1 for row in met[:, np.array(NAMES) == name])


@pytest.mark.parametrize(("rows", "d_source", "d_target"), SHAPES)
def test_squared_errors_are_those_of_predictions(rows: int, d_source: int, d_target: int) -> None:
    source, target = noise_of(rows, d_source, d_target)
    both = folded(source, group_folds(CODES[:rows], FOLDS))
    targets = np.stack([target, target[::-1]], axis=1)
    fit = both.double[0, 2]
    found, rest = squared_errors(fit, 2, sums_of(both, targets))
    test = fit.tests[2].rows
    for number, penalty in np.ndenumerate(PENALTIES):
        for which in range(2):
            y = targets[:, which]
            matrix = ridge_map(factored(source[fit.rows]), y[fit.rows], float(penalty))
            centre = source[fit.rows].mean(axis=0)
            guess = y[fit.rows].mean(axis=0) + (source[test] - centre) @ matrix
            wanted = np.square(y[test] - guess).sum()
            assert found[which, number[0]] == pytest.approx(wanted, rel=1e-8)
            alone = np.square(y[test] - y[fit.rows].mean(axis=0)).sum()
            assert rest[which] == pytest.approx(alone, rel=1e-9)


def test_held_out_r2_and_penalties_against_nested_scikit_learn() -> None:
    source, target = noise_of(*SHAPES[0])
    judged = held_out(folded(source, FOLD), target)
    residual = total = 0.0
    for outer in range(FOLDS):
        train, test = np.not_equal(FOLD, outer), np.equal(FOLD, outer)
        errors = []
        for penalty in PENALTIES:
            wrong = 0.0
            for inner in set(range(FOLDS)) - {outer}:
                kept = train & (inner != FOLD)
                wrong += np.square(
                    target[inner == FOLD]
                    - plain_ridge(source, target, kept, penalty)[inner == FOLD]
                ).sum()
            errors.append(wrong)
        best = PENALTIES[int(np.argmin(errors))]
        assert judged.penalties[outer] == best
        guess = plain_ridge(source, target, train, best)
        residual += np.square(target[test] - guess[test]).sum()
        total += np.square(target[test] - target[train].mean(axis=0)).sum()
    assert judged.r2 == pytest.approx(1 - residual / total, rel=1e-9)


def plain_ridge(
    source: np.ndarray, target: np.ndarray, kept: np.ndarray, penalty: float
) -> np.ndarray:
    x = source[kept]
    alpha = penalty * np.square(x - x.mean(axis=0)).sum() / len(x)
    return Ridge(alpha=alpha, solver="svd").fit(x, target[kept]).predict(source)


def test_a_held_out_cluster_never_reaches_the_choice_of_its_penalty() -> None:
    source, target = noise_of(*SHAPES[0])
    before = held_out(folded(source, FOLD), target)
    rng = np.random.default_rng(1)
    other_source, other_target = source.copy(), target.copy()
    other_source[FOLD == 1] = 50 * rng.normal(size=other_source[FOLD == 1].shape)
    other_target[FOLD == 1] = 50 * rng.normal(size=other_target[FOLD == 1].shape)
    after = held_out(folded(other_source, FOLD), other_target)
    assert after.penalties[1] == before.penalties[1]
    assert (np.delete(after.penalties, 1) != np.delete(before.penalties, 1)).any()
    again = held_out(folded(source, FOLD), other_target)
    np.testing.assert_array_equal(again.total[FOLD != 1] != before.total[FOLD != 1], True)


def test_isometric_rows_keep_every_error() -> None:
    source, target = noise_of(*SHAPES[2])
    narrow = isometric(target)
    assert narrow.shape == (40, 40)
    rows = folded(source, group_folds(CODES[:40], FOLDS))
    np.testing.assert_allclose(held_out(rows, narrow).residual, held_out(rows, target).residual)


def test_refitted_directions_are_those_of_refitted_maps() -> None:
    source, target = noise_of(*SHAPES[1])
    fit = factored(source)
    v = np.random.default_rng(2).normal(size=(2, source.shape[1]))
    orders = shuffled_orders(NAMES[:40], draws=4, rng=np.random.default_rng(0))
    weights = row_weights(fit, v, 0.1)
    for which in range(2):
        found = refitted(weights[which], target, orders)
        wanted = np.stack([v[which] @ ridge_map(fit, target[order], 0.1) for order in orders])
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.9999, 1.0])
def test_low_rank_factors_keep_their_share(energy: float) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(30, 6)) @ np.diag(2.0 ** -np.arange(6)) @ rng.normal(size=(6, 20))
    found = low_rank(matrix, energy=energy)
    values = np.linalg.svd(matrix, compute_uv=False)
    share = np.cumsum(np.square(values)) / np.square(values).sum()
    assert found.rank == (6 if energy == 1 else int(np.argmax(share >= energy)) + 1)
    lost = np.linalg.norm(matrix - found.left @ found.right) / np.linalg.norm(matrix)
    assert found.error == pytest.approx(lost, rel=1e-3, abs=1e-6)
    assert found.error <= np.sqrt(1 - energy) + 1e-6


def test_equal_source_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to map from"):
        factored(np.ones((4, 3)))


def test_two_folds_are_too_few() -> None:
    with pytest.raises(ValueError, match="three folds or more, found 2"):
        folded(np.eye(4), np.array([0, 0, 1, 1]))
