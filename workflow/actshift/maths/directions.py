"""Shift matrices, directions from means, cosines, and the algebra of the did mean."""

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


def naive_shift(
    tuned_chat: Float[np.ndarray, "prompt d_model"], base_raw: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, "prompt d_model"]:
    """M_naive = h_tuned(chat) - h_base(raw): tuning and chat template at once.

    Args:
        tuned_chat: Tuned model, templated prompts, `[prompt, d_model]`.
        base_raw: Base model, bare prompts, the same prompts in the same order.

    Returns:
        float64 `[prompt, d_model]`, in units of the residual stream.

    Source: arXiv 2605.24583, section on the four variants.
    """
    return _difference(tuned_chat, base_raw)


def template_shift(
    tuned_chat: Float[np.ndarray, "prompt d_model"], base_chat: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, "prompt d_model"]:
    """M_template = h_tuned(chat) - h_base(chat): tuning alone, the template on both sides.

    Args:
        tuned_chat: Tuned model, templated prompts.
        base_chat: Base model, the same text (the tuned model's template).

    Returns:
        float64 `[prompt, d_model]`, in units of the residual stream.

    Source: arXiv 2605.24583.
    """
    return _difference(tuned_chat, base_chat)


def aligned_shift(
    tuned_chat: Float[np.ndarray, "prompt d_model"], tuned_raw: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, "prompt d_model"]:
    """M_aligned = h_tuned(chat) - h_tuned(raw): a template shift inside the tuned model.

    The paper calls it "alignment-stage shift", but the base model does not enter it.

    Args:
        tuned_chat: Tuned model, templated prompts.
        tuned_raw: Tuned model, bare prompts.

    Returns:
        float64 `[prompt, d_model]`, in units of the residual stream.

    Source: arXiv 2605.24583.
    """
    return _difference(tuned_chat, tuned_raw)


def did_shift(
    template_harmful: Float[np.ndarray, "prompt d_model"],
    template_harmless: Float[np.ndarray, "control d_model"],
) -> Float[np.ndarray, "prompt d_model"]:
    """M_did = rows of M_template(harmful) - mean row of M_template(harmless).

    A treatment row minus the control *mean*, no pairing. It differs from M_template by one
    constant row, so the two agree exactly once centred.

    Args:
        template_harmful: M_template on harmful prompts.
        template_harmless: M_template on harmless prompts; any number of rows.

    Returns:
        float64 `[prompt, d_model]`, in units of the residual stream.

    Source: arXiv 2605.24583, difference in differences.
    """
    control = np.mean(template_harmless, axis=0, dtype=np.float64)
    return np.asarray(template_harmful, dtype=np.float64) - control


def _difference(
    left: Float[np.ndarray, "prompt d_model"], right: Float[np.ndarray, "prompt d_model"]
) -> Float[np.ndarray, "prompt d_model"]:
    return np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
