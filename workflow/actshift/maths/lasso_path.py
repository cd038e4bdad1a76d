"""Exact LASSO paths of many small problems at once.

A problem is known by its Gram matrix alone and followed along its piecewise linear path of
solutions, all problems in step: thousands of half-samples and permuted targets of a few features
take seconds.

Objective, as scikit-learn's: ||y - X w||^2 / (2 n) + alpha ||w||_1.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

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

    `gram` is X^T X / n of centred features, `cross` X^T y / n. Penalties fall and are above 0; one
    row for all problems, or one each. Coefficients are exact up to rounding. A feature that is a
    combination of active ones never joins; one without spread stays 0.

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
        own = going[rows] if len(alphas) > 1 else np.zeros_like(rows)
        fallen = np.maximum(top[rows] - alphas[own, columns], 0.0)
        out[going[rows], columns] = state.weights[going[rows]] + fallen[:, None] * move[rows]
        state.weights[going] += step[:, None] * move
        leaves = state.active[going, which]
        state.weights[going[leaves], which[leaves]] = 0.0
        state.left[going] = np.where(leaves, which, -1)
        state.penalty[going], state.event[going] = bottom, which
        going = going[bottom >= last[going]]
    # A path of more events than that (none was met) keeps its last coefficients.
    for one in going:
        out[one, passed[one] :] = state.weights[one]
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
