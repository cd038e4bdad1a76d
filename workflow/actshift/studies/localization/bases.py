"""Low-rank bases of every layer, fitted on the clusters of other folds than they are scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from actshift.maths.frames import random_frame
from actshift.patching import StateSums
from actshift.random_streams import RANDOM_BASES

#: Bases that are fitted: of the shift tuned - base, of the tuned states, of the base states.
FITTED = ("shift", "states", "base_states")
RANDOM = "random"
BASES_COLUMNS = ("layer", "basis", "k", "fold", "share", "share_fit", "n_fit", "n", "d")

#: Orthonormal columns of each layer, `[layer, d_model, k]`, by name of the basis.
Bases = Mapping[str, Float[np.ndarray, "layer d_model k"]]


@dataclass(frozen=True)
class FoldBasis:
    """What the pairs of one fold are patched in: columns, and rows of `BASES_COLUMNS`.

    The first k of the orthonormal columns are the basis of rank k.
    """

    columns: Float[np.ndarray, "layer d_model k"]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (divisor n) of each coordinate of a model's states."""

    mean: Float[np.ndarray, "layer d_model"]
    std: Float[np.ndarray, "layer d_model"]


def fit_bases(name: str, parts: Sequence[StateSums], *, ranks: Sequence[int]) -> list[FoldBasis]:
    """Top right singular vectors of the states of all other folds, for each fold.

    H = U S V^T over the tokens of the other folds; a basis of rank k is the first k columns of V.

    `parts` are the sums of each fold; the largest of the ranks decides the number of columns.

    Returns:
        By fold, the basis and by rank the share of the squared norm that it holds: `share` of the
        fold left out, `share_fit` of the tokens it was fitted on.

    Source: Chaudhury 2025 (arXiv 2510.16167), A5; held-out clusters are ours.
    """
    bases = []
    for fold in range(len(parts)):
        fit = _without(parts, fold)
        columns = np.stack([fit.basis(layer, max(ranks)) for layer in range(len(fit.total))])
        bases.append(FoldBasis(columns, _rows(name, fold, columns, parts[fold], fit, ranks)))
    return bases


def random_bases(parts: Sequence[StateSums], *, ranks: Sequence[int], seed: int) -> list[FoldBasis]:
    """The same random basis for each fold, with the shares of the states that it holds."""
    layers, width = parts[0].total.shape
    rng = RANDOM_BASES.rng(seed)
    columns = np.stack([random_frame(width, max(ranks), rng) for _ in range(layers)])
    return [
        FoldBasis(columns, _rows(RANDOM, fold, columns, part, _without(parts, fold), ranks))
        for fold, part in enumerate(parts)
    ]


def moments(parts: Sequence[StateSums]) -> Moments:
    """Moments over the tokens of all folds."""
    count = sum(part.count for part in parts)
    mean = np.sum([part.total for part in parts], axis=0) / count
    squares = np.sum([np.diagonal(part.second, axis1=1, axis2=2) for part in parts], axis=0) / count
    return Moments(mean, np.sqrt(np.maximum(squares - mean**2, 0.0)))


def _without(parts: Sequence[StateSums], fold: int) -> StateSums:
    """Sums over the other folds, added in place: at a real width one of them is half a gigabyte."""
    others = [part for number, part in enumerate(parts) if number != fold]
    total, second = others[0].total.copy(), others[0].second.copy()
    for part in others[1:]:
        total += part.total
        second += part.second
    return StateSums(sum(part.count for part in others), total, second)


def _rows(
    name: str,
    fold: int,
    columns: Float[np.ndarray, "layer d_model k"],
    scored: StateSums,
    fit: StateSums,
    ranks: Sequence[int],
) -> list[dict[str, Any]]:
    held, fitted = _shares(columns, scored), _shares(columns, fit)
    return [
        {
            "layer": layer,
            "basis": name,
            "k": k,
            "fold": fold,
            "share": held[layer, k - 1],
            "share_fit": fitted[layer, k - 1],
            "n_fit": fit.count,
            "n": scored.count,
            "d": columns.shape[1],
        }
        for layer in range(len(columns))
        for k in ranks
    ]


def _shares(
    columns: Float[np.ndarray, "layer d_model k"], of: StateSums
) -> Float[np.ndarray, "layer k"]:
    """Share of sum ||h||^2 in the span of the first 1, 2 ... k columns."""
    held = (columns * (of.second @ columns)).sum(axis=1).cumsum(axis=1)
    whole = np.trace(of.second, axis1=1, axis2=2)[:, None]
    return np.divide(held, whole, out=np.full_like(held, np.nan), where=whole > 0)
