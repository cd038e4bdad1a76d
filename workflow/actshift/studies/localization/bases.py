"""Low-rank bases of every layer, fitted on the clusters of other folds than they are scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Float

from actshift.pairs import StateSums

#: Bases that are fitted: of the shift tuned - base, of the tuned states, of the base states.
FITTED = ("shift", "states", "base_states")
RANDOM = "random"
BASES_COLUMNS = ("layer", "basis", "k", "fold", "share", "share_fit", "n_fit", "n")

#: Orthonormal columns of each layer, `[layer, d_model, k]`, by name of the basis.
Bases = Mapping[str, Float[np.ndarray, "layer d_model k"]]


@dataclass(frozen=True)
class FoldBases:
    """What one fold is patched with.

    Attributes:
        bases: By name.
        rows: Shares of variance, as `BASES_COLUMNS` says.
    """

    bases: Bases
    rows: list[dict[str, Any]]


def fold_bases(
    sums: Mapping[str, Sequence[StateSums]], fold: int, *, ranks: Sequence[int], seed: int
) -> FoldBases:
    """Top right singular vectors of the states of all other folds, and a random basis.

    H = U S V^T over the tokens of the other folds; a basis of rank k is the first k columns of V.

    Args:
        sums: By name of `FITTED`, the sums of each fold.
        fold: The fold that is left out.
        ranks: Ranks whose shares are told; the largest decides the number of columns.
        seed: Of the random basis, one draw for all folds.

    Returns:
        Bases, and by rank the share of the squared norm they hold: `share` of the fold left out,
        `share_fit` of the tokens they were fitted on.

    Source: Chaudhury 2025 (arXiv 2510.16167), A5; held-out clusters are ours.
    """
    most = max(ranks)
    fits = {name: _without(parts, fold) for name, parts in sums.items()}
    bases = {name: _top(fit, most) for name, fit in fits.items()}
    bases[RANDOM] = _random(fits["shift"].total.shape, most, seed)
    rows: list[dict[str, Any]] = []
    for name, columns in bases.items():
        # What a random basis holds of the shift is what the fitted one of the shift is held to.
        of = "shift" if name == RANDOM else name
        scored, fit = sums[of][fold], fits[of]
        held, fitted = _shares(columns, scored), _shares(columns, fit)
        rows += [
            {
                "layer": layer,
                "basis": name,
                "k": k,
                "fold": fold,
                "share": held[layer, k - 1],
                "share_fit": fitted[layer, k - 1],
                "n_fit": fit.count,
                "n": scored.count,
            }
            for layer in range(len(columns))
            for k in ranks
        ]
    return FoldBases(bases, rows)


def add_sums(parts: Sequence[StateSums]) -> StateSums:
    """Sums over the union of disjoint sets of tokens."""
    return reduce(
        lambda a, b: StateSums(a.count + b.count, a.total + b.total, a.second + b.second), parts
    )


def _without(parts: Sequence[StateSums], fold: int) -> StateSums:
    return add_sums([part for number, part in enumerate(parts) if number != fold])


def _top(fit: StateSums, k: int) -> Float[np.ndarray, "layer d_model k"]:
    return np.stack([fit.basis(layer, k) for layer in range(len(fit.total))])


def _random(shape: tuple[int, ...], k: int, seed: int) -> Float[np.ndarray, "layer d_model k"]:
    rng = np.random.default_rng([seed, 51])
    return np.stack([np.linalg.qr(rng.standard_normal((shape[1], k)))[0] for _ in range(shape[0])])


def _shares(
    columns: Float[np.ndarray, "layer d_model k"], of: StateSums
) -> Float[np.ndarray, "layer k"]:
    """Share of sum ||h||^2 in the span of the first 1, 2 ... k columns."""
    held = np.einsum("ldk,lde,lek->lk", columns, of.second, columns).cumsum(axis=1)
    whole = np.trace(of.second, axis1=1, axis2=2)[:, None]
    return np.divide(held, whole, out=np.full_like(held, np.nan), where=whole > 0)
