"""Directions from means, cosines, and the algebra that ties the did mean to the refusal one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def diff_in_means(
    treated: Float[np.ndarray, "prompt d_model"], control: Float[np.ndarray, "control d_model"]
) -> Float[np.ndarray, " d_model"]:
    """Mean row of `treated` minus mean row of `control`, raw (not normalised), float64.

    Args:
        treated: Activations of one condition, for example harmful prompts.
        control: Activations of the other condition.

    Returns:
        `[d_model]`, in units of the residual stream.

    Source: Arditi et al. 2024 (arXiv 2406.11717), difference in means.
    """
    means = [np.mean(rows, axis=0, dtype=np.float64) for rows in (treated, control)]
    return np.asarray(means[0] - means[1])


def mean_shift(
    treated: Float[np.ndarray, "prompt d_model"], control: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, " d_model"]:
    """Mean over prompts of `treated` minus `control`, both read on the same prompts, float64.

    Equal to `diff_in_means` but for rounding: here the difference is taken prompt by prompt.

    Args:
        treated: Activations of one model.
        control: Activations of the other model, in the same order of prompts.

    Returns:
        `[d_model]`, in units of the residual stream.
    """
    shifts = np.asarray(treated, dtype=np.float64) - np.asarray(control, dtype=np.float64)
    return shifts.mean(axis=0)


def cosine(a: Float[np.ndarray, " d_model"], b: Float[np.ndarray, " d_model"]) -> float:
    """Signed cosine of two vectors; NaN when either is zero (no direction, no cosine)."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norms, -1.0, 1.0)) if norms > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class MeanAlgebra:
    """What the means alone say about cos(mean(M_did), contrast of the tuned model).

    Attributes:
        cos_from_means: |cos(tuned - base, tuned)| of the two models' own contrasts.
        base_ratio: |base contrast| / |tuned contrast|.
        cos_base: Signed cosine between the two contrasts.
    """

    cos_from_means: float
    base_ratio: float
    cos_base: float


def did_mean_algebra(
    tuned_contrast: Float[np.ndarray, " d_model"], base_contrast: Float[np.ndarray, " d_model"]
) -> MeanAlgebra:
    """mean(M_did) = tuned contrast - base contrast, so a small base contrast makes |cos| 1.

    With q = |base| / |tuned| and c = cos(base, tuned), the cosine is
    (1 - q c) / sqrt(1 - 2 q c + q^2): a function of q and c alone.

    Args:
        tuned_contrast: Tuned model's treated-minus-control mean, chat template.
        base_contrast: The same contrast of the base model, chat template.

    Returns:
        The three numbers; NaN where a vector is zero.
    """
    tuned_norm = float(np.linalg.norm(tuned_contrast))
    base_norm = float(np.linalg.norm(base_contrast))
    return MeanAlgebra(
        cos_from_means=abs(cosine(tuned_contrast - base_contrast, tuned_contrast)),
        base_ratio=base_norm / tuned_norm if tuned_norm > 0 else float("nan"),
        cos_base=cosine(base_contrast, tuned_contrast),
    )
