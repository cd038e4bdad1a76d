"""LoRA on the linear maps of the decoder blocks, and merging it into ordinary weights."""

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn

from actshift.errors import UserError
from actshift.models.families import blocks_of, embedding_of, family_of, head_of

#: What peft calls the one adapter of a model.
ADAPTER = "default"


def add_lora(model: Any, *, rank: int, alpha: int, rslora: bool = False, head: bool = False) -> Any:
    """Wrap a model so that W + scale B A is trained for every linear map of its blocks.

    Args:
        model: A causal language model of the table; its own weights are frozen, in place.
        rank: Of the update.
        alpha: scale = alpha / rank, or
        rslora: alpha / sqrt(rank).
        head: Whether the head gets an update too; one that shares the embedding's matrix never
            does.

    Returns:
        The wrapped model. B starts at zero, A is drawn from torch's global generator.

    Raises:
        UserError: The blocks hold no linear maps (GPT-2 keeps its own kind).

    Source: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732).
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
    untied = head_of(model).weight is not embedding_of(model).weight
    if head and untied:
        names = sorted([*names, family_of(model.config.model_type).head])
    if not names:
        raise UserError(
            f"{type(model).__name__}: its blocks hold no linear maps that LoRA could be put on; "
            "adapters need another architecture"
        )
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=names,
        lora_dropout=0.0,
        use_rslora=rslora,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, settings)


def merge_lora(wrapped: Any) -> Any:
    """Add the update to the weights and take the wrapping off: an ordinary model again."""
    return wrapped.merge_and_unload().requires_grad_(False).eval()
