"""How an effect is spread over units: effective number, centre of mass; and one-feature probes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real


def effective_number(effects: Float[np.ndarray, "*cell unit"]) -> Float[np.ndarray, "*cell"]:
    """Effective number of units, (sum e+)^2 / sum (e+)^2 with e+ = max(e, 0).

    1 where one unit carries all, U where U units carry equal parts: the inverse participation
    ratio, which is Hill's number of order 2 of the shares. Noise in idle units raises it, never
    lowers it below 1.

    Args:
        effects: Effect of each unit, positive towards the donor.

    Returns:
        One number a cell, 1 to U; NaN where no effect is positive.

    Source:
        Hill 1973 (Ecology 54), order 2; Laakso and Taagepera 1979.
    """
    kept = np.maximum(np.asarray(effects, dtype=np.float64), 0.0)
    squares = np.square(kept).sum(axis=-1)
    # A sum of no positive effect is 0/0.
    total = np.where(squares > 0, kept.sum(axis=-1), np.nan)
    return np.asarray(total**2 / np.where(squares > 0, squares, 1.0))


def centre_of_mass(
    effects: Float[np.ndarray, "*cell unit"], at: Float[np.ndarray, " unit"]
) -> Float[np.ndarray, "*cell"]:
    """Mean position of the positive effects, sum e+ x / sum e+.

    Args:
        effects: Effect of each unit, positive towards the donor.
        at: Position of each unit, such as `unit_depths`.

    Returns:
        One position a cell; NaN where no effect is positive.
    """
    kept = np.maximum(np.asarray(effects, dtype=np.float64), 0.0)
    total = kept.sum(axis=-1)
    return np.asarray(np.where(total > 0, kept @ at, np.nan) / np.where(total > 0, total, 1.0))


def unit_depths(n_layers: int) -> Float[np.ndarray, " unit"]:
    """Relative depth of embedding, blocks and head: 0, (l + 1/2) / L, 1.

    Equal parts in all units have their centre at 1/2.

    Args:
        n_layers: Number of decoder blocks, L.

    Returns:
        `[L + 2]`.
    """
    return np.concatenate([[0.0], (np.arange(n_layers) + 0.5) / n_layers, [1.0]])


@dataclass(frozen=True, slots=True)
class Probes:
    """Least-squares lines of a target on one feature at a time.

    Attributes:
        slope: w of y = w x + b, by feature.
        intercept: b.
        r2: 1 - residual / total sum of squares, in sample.
    """

    slope: Float[np.ndarray, "*draw layer"]
    intercept: Float[np.ndarray, "*draw layer"]
    r2: Float[np.ndarray, "*draw layer"]


def probes(
    features: Float[np.ndarray, "pair layer"],
    target: Float[np.ndarray, " pair"],
    weights: Real[np.ndarray, "*draw pair"],
) -> Probes:
    """Weighted least squares of the target on every feature by itself.

    w = cov(x, y) / var(x), b = mean(y) - w mean(x), R^2 = cov^2 / (var(x) var(y)).

    Args:
        features: One column a layer.
        target: What is predicted.
        weights: Weight of each pair, such as bootstrap counts; not negative.

    Returns:
        One line a draw and layer; NaN where a feature (R^2: or the target) has no spread.

    Source:
        Chaudhury 2025 (arXiv 2510.16167), per-layer linear probe.
    """
    share = weights / weights.sum(axis=-1, keepdims=True)
    x, y = np.asarray(features, dtype=np.float64), np.asarray(target, dtype=np.float64)
    # Centred once: the moments of a draw are then small differences of small numbers.
    centre, level = x.mean(axis=0), y.mean()
    x, y = x - centre, y - level
    mean_x, mean_y = share @ x, (share @ y)[..., None]
    var_x = share @ np.square(x) - mean_x**2
    var_y = (share @ np.square(y))[..., None] - mean_y**2
    cov = share @ (x * y[:, None]) - mean_x * mean_y
    floor = 1e-12
    var_x = np.where(var_x > floor * np.square(x).mean(axis=0), var_x, np.nan)
    var_y = np.where(var_y > floor * np.square(y).mean(), var_y, np.nan)
    slope = cov / var_x
    return Probes(
        slope=slope,
        intercept=mean_y + level - slope * (mean_x + centre),
        r2=cov**2 / (var_x * var_y),
    )
