"""LoRA on the linear maps of the decoder blocks, and merging it into ordinary weights."""

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn

from actshift.models.families import blocks_of


def add_lora(model: Any, *, rank: int, alpha: int) -> Any:
    """Wrap a model so that W + (alpha / rank) B A is trained for every linear map of its blocks.

    Args:
        model: A causal language model of the table; its own weights are frozen, in place.
        rank: Of the update.
        alpha: Its scale.

    Returns:
        The wrapped model. B starts at zero, A is drawn from torch's global generator.

    Source: Hu et al. 2021 (arXiv 2106.09685).
    """
    inside = blocks_of(model)
    # Sorted: a set would put the matrices in another order, and so draw others, every time.
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, part in inside.named_modules()
            if isinstance(part, nn.Linear)
        }
    )
    settings = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, settings)


def merge_lora(wrapped: Any) -> Any:
    """Add the update to the weights and take the wrapping off: an ordinary model again."""
    return wrapped.merge_and_unload().requires_grad_(False).eval()
