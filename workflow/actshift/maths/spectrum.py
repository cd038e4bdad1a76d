"""Singular values through the small Gram matrix, and the rank numbers read off them.

A matrix here holds one prompt a row, `[prompt, d_model]`; the paper's M is its transpose, so its
left singular vectors live in `d_model`. Everything is accumulated in float64: a float32 Gram
matrix loses all singular values below about 3e-4 of the largest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.vocab import DEFAULT_EPS

#: Below this share of the largest singular value a Gram matrix is too coarse: deflate, redo.
_HEAD = 1e-4
#: A share of energy this close to 1 - eps counts as reached; settles ties that round differently.
_TIE = 1e-12
#: Centred singular values below this share of the uncentred norm are rounding of the mean.
_CENTRED_FLOOR = 1e-10
#: Left singular vectors are given for singular values above this share of the largest.
_VECTOR_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values, and the leading left singular vectors, of one matrix.

    Attributes:
        values: Singular values, falling, `[min(prompt, d_model)]`, float64.
        left: Orthonormal left singular vectors (of the paper's d x n matrix),
            `[d_model, component]`; no more than asked for, none for values that are zero.
    """

    values: Float[np.ndarray, " value"]
    left: Float[np.ndarray, "d_model component"]


def spectrum(
    rows: Float[np.ndarray, "prompt d_model"], *, k: int = 0, centered: bool = False
) -> Spectrum:
    """Thin SVD of the rows through the Gram matrix of the shorter side, in two passes.

    Values above 1e-4 of the largest come from eigh(X X^T); the rest from the Gram matrix of what
    is left after projecting those out, whose own largest value is then small.

    Args:
        rows: Any real dtype, `[prompt, d_model]`.
        k: Number of left singular vectors wanted.
        centered: Subtract the mean row first.

    Returns:
        The spectrum; a zero matrix has zero values and no vectors.

    Numerics:
        Relative error below 1e-6 for values above 1e-6 of the largest; below 1e-8 of the
        largest the values are rounding. Centred values below 1e-10 of the uncentred Frobenius
        norm are set to zero.
    """
    x = np.asarray(rows, dtype=np.float64)
    floor = 0.0
    if centered:
        floor = _CENTRED_FLOOR * float(np.linalg.norm(x))
        x = x - x.mean(axis=0)
    wide = x.shape[0] > x.shape[1]
    values, vectors = _small_side(x.T if wide else x)
    values = np.where(values > floor, values, 0.0)
    usable = int(np.count_nonzero(values > _VECTOR_FLOOR * values[0])) if values.size else 0
    vectors = vectors[:, : min(k, usable)]
    return Spectrum(values=values, left=vectors if wide else _orthonormal(x.T @ vectors))


def rank_eps(values: Float[np.ndarray, " value"], eps: float = DEFAULT_EPS) -> int:
    """Smallest k with sum_{i<=k} s_i^2 >= (1 - eps) sum_i s_i^2; 0 for a zero matrix.

    Args:
        values: Singular values, falling.
        eps: Share of the energy that may be left out, in (0, 1).

    Returns:
        The rank, between 0 and the number of values.

    Source: arXiv 2605.24583, definition of the effective rank.
    """
    return _rank_of_energies(np.square(values), eps)


def cumulative_shares(values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " value"]:
    """Share of the energy in the first k values, k = 1, 2, ...; NaN for a zero matrix."""
    energies = np.cumsum(np.square(values))
    if energies.size == 0 or energies[-1] <= 0:
        return np.full(values.shape, np.nan)
    return energies / energies[-1]


def stable_rank(values: Float[np.ndarray, " value"]) -> float:
    """||M||_F^2 / s_1^2; at most the rank, 0 for a zero matrix."""
    return float(np.sum(np.square(values / values[0]))) if _alive(values) else 0.0


def entropy_rank(values: Float[np.ndarray, " value"]) -> float:
    """exp(-sum p_i ln p_i), p_i = s_i / sum s; 0 for a zero matrix.

    Source: Roy & Vetterli 2007, "The effective rank" (singular values, not their squares).
    """
    if not _alive(values):
        return 0.0
    p = values[values > 0] / np.sum(values)
    return float(np.exp(-np.sum(p * np.log(p))))


def gram(rows: Float[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, "prompt prompt"]:
    """X X^T over prompts, accumulated in float64."""
    x = np.asarray(rows, dtype=np.float64)
    return x @ x.T


def double_centre(
    matrix: Float[np.ndarray, "prompt prompt"], weights: Float[np.ndarray, " prompt"]
) -> Float[np.ndarray, "prompt prompt"]:
    """Gram matrix of the rows minus their weighted mean, from the Gram matrix alone.

    Args:
        matrix: X X^T.
        weights: Non-negative weights of the mean, not all zero.

    Returns:
        (X - 1 m)(X - 1 m)^T with m = sum w_i x_i / sum w_i.
    """
    p = weights / weights.sum()
    row = matrix @ p
    return matrix - row[:, None] - row[None, :] + float(p @ row)


class ResampledRanks:
    """Ranks of weighted resamples of one matrix, without touching its d_model side again.

    A resample with counts w has the non-zero spectrum of diag(sqrt w) X X^T diag(sqrt w), or of
    X^T diag(w) X where d_model is the shorter side: a draw costs min(distinct, d_model)^3.
    """

    def __init__(self, rows: Float[np.ndarray, "prompt d_model"]) -> None:
        """Keep the Gram matrix of the rows (prompt side), or the rows where d_model is short."""
        self._rows = np.asarray(rows, dtype=np.float64)
        self._gram = gram(self._rows)

    def ranks(
        self,
        weights: Int[np.ndarray, "draw prompt"] | Bool[np.ndarray, "draw prompt"],
        *,
        eps: float = DEFAULT_EPS,
        centered: bool = False,
    ) -> Float[np.ndarray, " draw"]:
        """`rank_eps` of each draw; NaN for a draw that holds no prompt.

        Args:
            weights: How often each prompt occurs in each draw.
            eps: As in `rank_eps`.
            centered: Subtract each draw's own mean row first.

        Returns:
            One rank a draw, float64 so that NaN can be told.
        """
        return np.array([self._rank(draw, eps, centered) for draw in weights], dtype=np.float64)

    def _rank(self, draw: np.ndarray, eps: float, centered: bool) -> float:
        kept = np.flatnonzero(draw)
        if kept.size == 0:
            return float("nan")
        weights = draw[kept].astype(np.float64)
        if kept.size <= self._rows.shape[1]:
            small = self._gram[np.ix_(kept, kept)]
            small = double_centre(small, weights) if centered else small
            root = np.sqrt(weights)
            small = small * root[:, None] * root[None, :]
        else:
            x = self._rows[kept]
            x = x - (weights @ x) / weights.sum() if centered else x
            small = x.T @ (x * weights[:, None])
        uncentred = float(weights @ np.diagonal(self._gram)[kept])
        if np.trace(small) <= _CENTRED_FLOOR**2 * uncentred:
            return 0.0
        return float(_rank_of_energies(np.linalg.eigvalsh(small)[::-1], eps))


def _rank_of_energies(energies: Float[np.ndarray, " value"], eps: float) -> int:
    shares = np.cumsum(np.clip(energies, 0.0, None))
    if shares.size == 0 or shares[-1] <= 0:
        return 0
    return int(np.searchsorted(shares / shares[-1], 1.0 - eps - _TIE) + 1)


def _alive(values: Float[np.ndarray, " value"]) -> bool:
    return bool(values.size > 0 and values[0] > 0)


def _small_side(
    y: Float[np.ndarray, "short long"],
) -> tuple[Float[np.ndarray, " short"], Float[np.ndarray, "short short"]]:
    """Singular values of y, falling, and the vectors of its short side."""
    values, vectors = _eigen(y)
    head = int(np.count_nonzero(values > _HEAD * values[0])) if values.size else 0
    if head in (0, len(values)):
        return values, vectors
    top = vectors[:, :head]
    rest_values, rest_vectors = _eigen(y - top @ (top.T @ y))
    tail = len(values) - head
    values = np.concatenate([values[:head], np.minimum(rest_values[:tail], values[head - 1])])
    return values, np.concatenate([top, rest_vectors[:, :tail]], axis=1)


def _eigen(
    y: Float[np.ndarray, "short long"],
) -> tuple[Float[np.ndarray, " short"], Float[np.ndarray, "short short"]]:
    energies, vectors = np.linalg.eigh(y @ y.T)
    return np.sqrt(np.clip(energies[::-1], 0.0, None)), vectors[:, ::-1]


def _orthonormal(
    columns: Float[np.ndarray, "d_model component"],
) -> Float[np.ndarray, "d_model component"]:
    """Unit columns; each loses what rounding left in it of the stronger ones before it."""
    frame, triangle = np.linalg.qr(columns)
    return frame * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
