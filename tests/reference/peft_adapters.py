"""Adapters saved by peft itself, as somebody else would."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from actshift.models.load import load_model


def peft_adapter(
    checkpoint: Path,
    folder: Path,
    *,
    seed: int = 0,
    scale: float = 0.3,
    embeddings: bool = False,
    change: Callable[[Any], object] = id,
    **settings: Any,
) -> Any:
    """Save an adapter of random weights; returns peft's own model, which does what it should.

    Args:
        checkpoint: The base.
        folder: To make.
        seed: Of the weights.
        scale: Their size.
        embeddings: Whether the embeddings and the head are saved whole, as peft does by itself
            where they are adapted or resized.
        change: What is done to the base first.
        settings: Of peft's `LoraConfig`.
    """
    torch.manual_seed(seed)
    loaded = load_model(checkpoint, name="m", dtype="float32", device="cpu")
    change(loaded.model)
    asked = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]} | settings
    with warnings.catch_warnings():
        # peft asks transformers by a name that is going away.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        wrapped = get_peft_model(loaded.model, LoraConfig(**asked))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale)
    wrapped.save_pretrained(folder, save_embedding_layers=embeddings)
    return wrapped.eval()
