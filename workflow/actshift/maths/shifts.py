"""The four shift matrices of the audit, one row a prompt (the paper writes them as columns)."""

import numpy as np
from jaxtyping import Float


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
