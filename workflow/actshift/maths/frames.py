"""Frames: orthonormal columns that an ablation projects out, and the energy that lies in them."""

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.spectrum import spectrum


def principal_frame(
    rows: Float[np.ndarray, "prompt d_model"], *, k: int, centered: bool = False
) -> Float[np.ndarray, "d_model component"]:
    """Leading left singular vectors of the paper's d x n matrix (its columns are these rows).

    Args:
        rows: A shift matrix or activations, a row a prompt.
        k: Most columns wanted.
        centered: Subtract the mean row first: principal components instead.

    Returns:
        Orthonormal columns in order of falling singular value, float64; no more than `k`, and none
        for singular values that are zero.

    Source: arXiv 2605.24583, the ablation test (uncentred); centred components are a control of
    this project.
    """
    # A view with falling strides would not go into a tensor.
    return np.ascontiguousarray(spectrum(rows, k=k, centered=centered).left)


def random_frame(
    d_model: int, k: int, rng: np.random.Generator
) -> Float[np.ndarray, "d_model component"]:
    """Q of the QR decomposition of a d x k Gaussian matrix: a uniformly random k-frame.

    Its first j columns are a uniformly random j-frame, so one draw serves every k.

    Args:
        d_model: Width of the residual stream.
        k: Columns, at most `d_model`.
        rng: Seeded generator.

    Raises:
        ValueError: More columns than dimensions.

    Source: arXiv 2605.24583, random control of the ablation test (there one draw, here many).
    """
    if k > d_model:
        raise ValueError(f"a frame of {k} columns does not fit into {d_model} dimensions")
    frame, triangle = np.linalg.qr(rng.standard_normal((d_model, k)))
    # Without this sign rule the distribution would depend on LAPACK's own convention.
    return frame * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def column_shares(
    rows: Float[np.ndarray, "prompt d_model"], frame: Float[np.ndarray, "d_model component"]
) -> Float[np.ndarray, " component"]:
    """Share of the rows' energy along each column: sum_p (x_p . u_i)^2 / sum_p ||x_p||^2.

    The columns are orthonormal, so the share of any subset's span is the sum over the subset.

    Args:
        rows: Activations or shifts, uncentred.
        frame: Orthonormal columns.

    Returns:
        A share a column, in [0, 1]; NaN where the rows are all zero.
    """
    wide = np.asarray(rows, dtype=np.float64)
    total = float(np.sum(np.square(wide)))
    if total <= 0:
        return np.full(frame.shape[1], np.nan)
    return np.sum(np.square(wide @ frame), axis=0) / total


def subset_share(
    shares: Float[np.ndarray, " component"], columns: Int[np.ndarray, " column"]
) -> float:
    """Share of the energy in the span of some columns (`column_shares`), never above 1."""
    return float(np.minimum(1.0, shares[columns].sum()))


def without(
    vector: Float[np.ndarray, " d_model"], other: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, " d_model"]:
    """The part of a vector that is orthogonal to another: v - (v . w^) w^, w^ = w / ||w||.

    Args:
        vector: v.
        other: w; where it is zero nothing is taken away.
    """
    norm = float(np.linalg.norm(other))
    if norm == 0:
        return vector
    unit = other / norm
    return vector - (vector @ unit) * unit


def unit_column(vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, "d_model 1"]:
    """A vector as a frame of one unit column.

    Raises:
        ValueError: The vector is zero and names no direction.
    """
    norm = float(np.linalg.norm(vector))
    if norm == 0:
        raise ValueError("a zero vector names no direction")
    return (vector / norm)[:, None]


#: Bands as (low, high, count) of the depth: the ones the released code used.
RELEASED_BANDS = {"narrow": (0.45, 0.70, 5), "wide": (0.30, 0.85, 8)}
#: Bands printed in the paper's eps table, by depth (32: Llama-3.1-8B, 42: Gemma-2-9B). They are
#: not the released ones; the Qwen band of that table is not known.
PRINTED_BANDS = {32: (14, 15, 17, 19, 22), 42: (19, 22, 25, 27, 29)}


def band_layers(depth: int) -> dict[str, tuple[int, ...]]:
    """Layers of each band of a model with `depth` blocks, repeated layers dropped.

    Formula: linspace(int(low * depth), int(high * depth), count), truncated to int. A shallow
    model repeats layers (6 blocks, narrow: 2 2 3 3 4); each counts once here.

    Args:
        depth: Number of decoder blocks.

    Returns:
        Band name to rising layer indices; `printed` only for the depths of the paper's table.

    Source: arXiv 2605.24583 released code; the printed bands from its eps table.
    """
    bands: dict[str, tuple[int, ...]] = {}
    for name, (low, high, count) in RELEASED_BANDS.items():
        points = np.linspace(int(low * depth), int(high * depth), count).astype(int)
        bands[name] = tuple(int(layer) for layer in np.unique(points))
    if depth in PRINTED_BANDS:
        bands["printed"] = PRINTED_BANDS[depth]
    return bands
