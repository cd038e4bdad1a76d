"""LassoCV and its elastic net on many subsets of the rows at once, by exact paths.

The published attribution fits `LassoCV` once. Here the same protocol also runs on hundreds of
half-samples and on permuted targets, and out of fold. A problem is known by its Gram matrix alone
and followed along its piecewise linear path of solutions, all problems in step.

Objective, as scikit-learn's: ||y - X w||^2 / (2 n) + alpha (r ||w||_1 + (1 - r) ||w||^2 / 2), with
r = 1 for the LASSO.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

#: Penalties of the published protocol: log-spaced from 1e-4 to 1e1 (how many is not said; 100 is
#: the default of scikit-learn's LassoCV).
ALPHAS = np.logspace(1, -4, 100)
#: A pivot below this share of its diagonal: the feature is a combination of active ones.
_COLLINEAR = 1e-10
#: Events in one path, as a multiple of the number of features.
_MAX_EVENTS = 20
#: Problems followed at once.
_CHUNK = 4096
#: A feature with less than this share of the largest variance has no spread.
_NO_SPREAD = 1e-14
#: A correlation that approaches the penalty more slowly never meets it.
_LEVEL = 1e-12
#: Distance from the penalty, as a share of it, that counts as touching.
_TOUCHES = 1e-9


@dataclass(frozen=True, eq=False)
class Moments:
    """What a problem's fit needs to know of its rows, centred in the problem.

    Attributes:
        gram: X^T X / n, `[problem, layer, layer]`.
        cross: X^T y / n, `[problem, layer]`.
        variance: y^T y / n, `[problem]`.
        mean_x: `[problem, layer]`.
        mean_y: `[problem]`.
    """

    gram: Float[np.ndarray, "problem layer layer"]
    cross: Float[np.ndarray, "problem layer"]
    variance: Float[np.ndarray, " problem"]
    mean_x: Float[np.ndarray, "problem layer"]
    mean_y: Float[np.ndarray, " problem"]


def moments(
    features: Float[np.ndarray, "*problem pair layer"],
    target: Float[np.ndarray, "... pair"],
    members: Bool[np.ndarray, "_ pair"],
) -> Moments:
    """Centred second moments of every subset of the rows.

    Features and target are shared by all problems, or one each; no problem may be without rows.
    """
    centre, level = features.mean(axis=-2), target.mean(axis=-1)
    # Centred once: the moments of a subset are then small differences of small numbers.
    x, y = features - centre[..., None, :], target - level[..., None]
    share = members / members.sum(axis=1, keepdims=True)
    weighted = share * y
    width = x.shape[-1]
    products = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], width * width)
    mean_x, mean_y = _weighted(share, x), weighted.sum(axis=1)
    second = _weighted(share, products).reshape(-1, width, width)
    return Moments(
        gram=second - mean_x[:, :, None] * mean_x[:, None, :],
        cross=_weighted(weighted, x) - mean_x * mean_y[:, None],
        variance=(weighted * y).sum(axis=1) - mean_y**2,
        mean_x=mean_x + centre,
        mean_y=mean_y + level,
    )


def _weighted(
    weights: Float[np.ndarray, "problem pair"], values: Float[np.ndarray, "... pair column"]
) -> Float[np.ndarray, "problem column"]:
    """Weighted sums over pairs of values that all problems share, or of each one's own."""
    return weights @ values if values.ndim == 2 else np.matmul(weights[:, None], values)[:, 0]


@dataclass(frozen=True, eq=False)
class Fits:
    """Cross-validated fits, in units of z-scored features.

    Attributes:
        alpha: Chosen penalty, by problem.
        weights: `[problem, layer]`.
        scale: Standard deviation (divisor n) of each feature in the problem; 1 without spread.
        mean_x: Mean of each feature in the problem.
        mean_y: Mean of the target.
    """

    alpha: Float[np.ndarray, " problem"]
    weights: Float[np.ndarray, "problem layer"]
    scale: Float[np.ndarray, "problem layer"]
    mean_x: Float[np.ndarray, "problem layer"]
    mean_y: Float[np.ndarray, " problem"]

    def predict(
        self, features: Float[np.ndarray, "*problem pair layer"]
    ) -> Float[np.ndarray, "fit pair"]:
        """Each fit's prediction for all rows, shared by the fits or each one's own."""
        slope = self.weights / self.scale
        level = self.mean_y - (slope * self.mean_x).sum(axis=1)
        return np.matmul(features, slope[:, :, None])[..., 0] + level[:, None]


def cross_validated(
    features: Float[np.ndarray, "*problem pair layer"],
    target: Float[np.ndarray, "... pair"],
    folds: Int[np.ndarray, "_ pair"],
    *,
    l1_ratio: float = 1.0,
) -> Fits:
    """LassoCV of many subsets of the rows at once: z-score, choose the penalty by folds, refit.

    The penalty has the smallest mean over folds of the mean squared error, the larger one of
    equals. Features are z-scored on all rows of a problem, as published, so also on the held-out
    ones; the intercept is refitted in every fold. Features (`[pair, layer]`) and target (`[pair]`)
    are shared by all problems, or one each. Folds count from 0; -1 where the problem lacks the row.
    `l1_ratio` is 1 for the LASSO, less for an elastic net.

    Raises:
        ValueError: A problem has fewer than two folds.

    Source:
        scikit-learn's LassoCV and ElasticNetCV, which the tests compare with.
    """
    members = folds >= 0
    if not ((folds == 1).any(axis=1) & (folds == 0).any(axis=1)).all():
        raise ValueError("every problem needs two folds or more")
    whole = moments(features, target, members)
    spread = np.sqrt(np.maximum(np.einsum("bii->bi", whole.gram), 0.0))
    floor = 1e-9 * np.maximum(np.abs(features).max(axis=-2), 1e-300)
    scale = np.where(spread > floor, spread, 1.0)
    keep = spread > floor
    errors = np.zeros((len(folds), len(ALPHAS)))
    count = np.zeros(len(folds))
    for number in range(int(folds.max()) + 1):
        inside = folds == number
        has = inside.any(axis=1)
        stacked = _of_problems(features, has, shared=2), _of_problems(target, has, shared=1)
        train, test = (moments(*stacked, rows[has]) for rows in (members & ~inside, inside))
        path = _solve(_scaled(train, scale[has], keep[has]), l1_ratio)
        errors[has] += _squared_errors(path, train, test, scale[has])
        count += has
    best = (errors / count[:, None]).argmin(axis=1)
    path = _solve(_scaled(whole, scale, keep), l1_ratio)
    return Fits(
        alpha=ALPHAS[best],
        weights=path[np.arange(len(best)), best],
        scale=scale,
        mean_x=whole.mean_x,
        mean_y=whole.mean_y,
    )


def _of_problems(
    values: Float[np.ndarray, "..."], has: Bool[np.ndarray, " problem"], *, shared: int
) -> Float[np.ndarray, "..."]:
    """Some problems' own values; all of them where the problems share them."""
    return values if values.ndim == shared else values[has]


def contiguous_folds(n: int, folds: int) -> Int[np.ndarray, " pair"]:
    """Folds of neighbouring rows, the first n mod k of them one row longer (KFold unshuffled)."""
    sizes = np.full(folds, n // folds) + (np.arange(folds) < n % folds)
    return np.repeat(np.arange(folds), sizes)


def group_folds(codes: Int[np.ndarray, " pair"], folds: int) -> Int[np.ndarray, " pair"]:
    """Folds of whole clusters: from the largest down, each to the lightest fold (GroupKFold).

    Args:
        codes: Cluster of each row, 0 to C - 1; a cluster may be empty.
        folds: How many; no more than there are clusters are used.
    """
    sizes = np.bincount(codes)
    fold_of, load = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds)
    for cluster in np.argsort(sizes, kind="stable")[::-1]:
        if sizes[cluster]:
            fold_of[cluster] = int(load.argmin())
            load[fold_of[cluster]] += sizes[cluster]
    return fold_of[codes]


def _scaled(
    sums: Moments,
    scale: Float[np.ndarray, "problem layer"],
    keep: Bool[np.ndarray, "problem layer"],
) -> tuple[Float[np.ndarray, "problem layer layer"], Float[np.ndarray, "problem layer"]]:
    gram = sums.gram / (scale[:, :, None] * scale[:, None, :])
    # A feature without spread in the whole problem is rounding noise in every fold.
    return (
        np.where(keep[:, :, None] & keep[:, None, :], gram, 0.0),
        np.where(keep, sums.cross / scale, 0.0),
    )


def _solve(
    scaled: tuple[Float[np.ndarray, "problem layer layer"], Float[np.ndarray, "problem layer"]],
    l1_ratio: float,
) -> Float[np.ndarray, "problem alpha layer"]:
    """An elastic net at one penalty is a LASSO whose Gram matrix has a ridge of that size."""
    gram, cross = scaled
    if l1_ratio == 1.0:
        return lasso_path(gram, cross, ALPHAS[None])
    ridges = (1.0 - l1_ratio) * ALPHAS[:, None, None] * np.eye(gram.shape[1])
    problems, width = cross.shape
    coefficients = lasso_path(
        (gram[:, None] + ridges).reshape(-1, width, width),
        np.repeat(cross, len(ALPHAS), axis=0),
        np.tile(l1_ratio * ALPHAS, problems)[:, None],
    )
    return coefficients.reshape(problems, len(ALPHAS), width)


def _squared_errors(
    path: Float[np.ndarray, "problem alpha layer"],
    train: Moments,
    test: Moments,
    scale: Float[np.ndarray, "problem layer"],
) -> Float[np.ndarray, "problem alpha"]:
    """Mean squared error on the test rows, from moments about the training means."""
    off_x, off_y = test.mean_x - train.mean_x, test.mean_y - train.mean_y
    second = test.gram + off_x[:, :, None] * off_x[:, None, :]
    slope = path / scale[:, None, :]
    return (
        (test.variance + off_y**2)[:, None]
        - 2.0 * np.einsum("bap,bp->ba", slope, test.cross + off_x * off_y[:, None])
        + np.einsum("bap,bap->ba", np.matmul(slope, second), slope)
    )


@dataclass(eq=False)
class _State:
    """Where every problem stands on its path; arrays change in place.

    `swept` is the Gram matrix swept at the active features. `usable` marks those that may join.
    """

    gram: Float[np.ndarray, "problem layer layer"]
    cross: Float[np.ndarray, "problem layer"]
    swept: Float[np.ndarray, "problem layer layer"]
    usable: Bool[np.ndarray, "problem layer"]
    active: Bool[np.ndarray, "problem layer"]
    signs: Float[np.ndarray, "problem layer"]
    weights: Float[np.ndarray, "problem layer"]
    penalty: Float[np.ndarray, " problem"]
    event: Int[np.ndarray, " problem"]
    left: Int[np.ndarray, " problem"]


def lasso_path(
    gram: Float[np.ndarray, "problem layer layer"],
    cross: Float[np.ndarray, "problem layer"],
    alphas: Float[np.ndarray, "#problem alpha"],
) -> Float[np.ndarray, "problem alpha layer"]:
    """Coefficients of many LASSO problems at every penalty, by the homotopy of the path.

    Between events the coefficients move along d = G_AA^-1 sign(w_A) as the penalty falls; at an
    event a feature joins (its correlation reaches the penalty) or leaves (its coefficient reaches
    0). One event is one sweep of the Gram matrix, done for all problems together.

    Args:
        gram: X^T X / n of centred features.
        cross: X^T y / n.
        alphas: Penalties, falling and above 0; one row for all problems, or one each.

    Returns:
        Exact coefficients up to rounding. A feature that is a combination of active ones never
        joins; one without spread stays 0.

    Raises:
        ValueError: The penalties do not fall.

    Source:
        Osborne, Presnell and Turlach 2000; Efron et al. 2004 (LARS, lasso modification).
    """
    if not (np.diff(alphas, axis=1) < 0).all() or not (alphas > 0).all():
        raise ValueError("penalties must fall and be positive")
    parts = [slice(start, start + _CHUNK) for start in range(0, len(gram), _CHUNK)]
    of_part = [alphas if len(alphas) == 1 else alphas[part] for part in parts]
    return np.concatenate(
        [_follow(gram[part], cross[part], grid) for part, grid in zip(parts, of_part, strict=True)]
    )


def _follow(
    gram: Float[np.ndarray, "problem layer layer"],
    cross: Float[np.ndarray, "problem layer"],
    alphas: Float[np.ndarray, "#problem alpha"],
) -> Float[np.ndarray, "problem alpha layer"]:
    out = np.zeros((len(cross), alphas.shape[1], cross.shape[1]))
    state = _start(gram, cross)
    last = np.broadcast_to(alphas[:, -1], len(cross))
    # Above the first penalty all coefficients are 0.
    passed = _count_above(alphas, np.arange(len(cross)), state.penalty)
    going = np.flatnonzero(state.penalty > last)
    for _ in range(_MAX_EVENTS * cross.shape[1]):
        if not len(going):
            break
        _pivot(state, going)
        move = np.where(
            state.active[going],
            np.einsum("bij,bj->bi", state.swept[going], state.signs[going]),
            0.0,
        )
        step, which = _next_event(state, going, move)
        top = state.penalty[going]
        bottom = np.maximum(top - step, 0.0)
        # Every penalty of the grid between this event and the next.
        ends = _count_above(alphas, going, bottom)
        counts = ends - passed[going]
        rows = np.repeat(np.arange(len(going)), counts)
        columns = np.arange(len(rows)) + np.repeat(ends - np.cumsum(counts), counts)
        passed[going] = ends
        grid = going[rows] if len(alphas) > 1 else np.zeros_like(rows)
        fallen = np.maximum(top[rows] - alphas[grid, columns], 0.0)
        out[going[rows], columns] = state.weights[going[rows]] + fallen[:, None] * move[rows]
        state.weights[going] += step[:, None] * move
        leaves = state.active[going, which]
        state.weights[going[leaves], which[leaves]] = 0.0
        state.left[going] = np.where(leaves, which, -1)
        state.penalty[going], state.event[going] = bottom, which
        going = going[bottom >= last[going]]
    # A path of more events than that (none was met) keeps its last coefficients.
    for problem in going:
        out[problem, passed[problem] :] = state.weights[problem]
    return out


def _count_above(
    alphas: Float[np.ndarray, "#problem alpha"],
    going: Int[np.ndarray, " going"],
    level: Float[np.ndarray, " going"],
) -> Int[np.ndarray, " going"]:
    """How many penalties of its grid lie above each problem's level."""
    if len(alphas) > 1:
        return (alphas[going] > level[:, None]).sum(axis=1)
    return np.searchsorted(-alphas[0], -level, side="left")


def _start(
    gram: Float[np.ndarray, "problem layer layer"], cross: Float[np.ndarray, "problem layer"]
) -> _State:
    scale = np.einsum("bii->bi", gram)
    usable = scale > _NO_SPREAD * scale.max(axis=1, keepdims=True)
    pull = np.abs(np.where(usable, cross, 0.0))
    return _State(
        gram=gram,
        cross=cross,
        swept=gram.copy(),
        usable=usable,
        active=np.zeros(cross.shape, dtype=bool),
        signs=np.zeros(cross.shape),
        weights=np.zeros(cross.shape),
        penalty=pull.max(axis=1),
        event=pull.argmax(axis=1),
        left=np.full(len(cross), -1),
    )


def _pivot(state: _State, going: Int[np.ndarray, " going"]) -> None:
    """Let the event's feature join or leave; one that others span is shut out for good."""
    event = state.event[going]
    pivot = state.swept[going, event, event]
    joins = ~state.active[going, event]
    spanned = joins & (pivot <= _COLLINEAR * state.gram[going, event, event])
    state.usable[going[spanned], event[spanned]] = False
    rows, event, pivot, joins = (x[~spanned] for x in (going, event, pivot, joins))
    pull = state.cross[rows, event] - np.einsum(
        "bi,bi->b", state.gram[rows, event], state.weights[rows]
    )
    state.signs[rows, event] = np.where(joins, np.sign(pull), 0.0)
    state.active[rows, event] = joins
    # Goodnight's sweep, its own inverse: swept[A, A] is G_AA^-1 afterwards.
    block, place = state.swept[rows], np.arange(len(rows))
    row, column = block[place, event], block[place, :, event]
    block -= column[:, :, None] * (row / pivot[:, None])[:, None, :]
    block[place, event] = row / pivot[:, None]
    block[place, :, event] = -column / pivot[:, None]
    block[place, event, event] = 1.0 / pivot
    state.swept[rows] = block


def _next_event(
    state: _State, going: Int[np.ndarray, " going"], move: Float[np.ndarray, "going layer"]
) -> tuple[Float[np.ndarray, " going"], Int[np.ndarray, " going"]]:
    """How far the penalty falls until a feature joins or leaves, and which one."""
    gram, weights, active = state.gram[going], state.weights[going], state.active[going]
    slope = np.einsum("bij,bj->bi", gram, move)
    pull = state.cross[going] - np.einsum("bij,bj->bi", gram, weights)
    level = state.penalty[going][:, None]
    waiting = state.usable[going] & ~active
    just_left = np.arange(weights.shape[1]) == state.left[going][:, None]
    leave = active & (weights * move < 0)
    each = np.where(leave, -weights / np.where(leave, move, 1.0), np.inf)
    for sign in (1.0, -1.0):
        # The correlation, pull - t slope, meets sign * (level - t).
        gap, closing = level - sign * pull, 1.0 - sign * slope
        # The one that just left touches the bound on one side and must not come back at once.
        meets = waiting & (closing > _LEVEL) & ~(just_left & (gap < _TOUCHES * level))
        step = np.maximum(gap, 0.0) / np.where(meets, closing, 1.0)
        each = np.minimum(each, np.where(meets, step, np.inf))
    which = each.argmin(axis=1)
    return np.minimum(each[np.arange(len(each)), which], level[:, 0]), which
