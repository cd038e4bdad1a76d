"""A causal language model taken apart: what patching, scoring and block swaps need of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Causal:
    """A causal language model and its parts.

    Attributes:
        model: Maps `input_ids` to logits, soft caps and scales included.
        trunk: The model without its head: maps `input_ids` to hidden states.
        embeddings: The token embedding, and that of positions where they are learned.
        blocks: Decoder blocks in order.
        final_norm: The norm between the last block and the head.
        head: The language-model head.
        attention: For each block the modules of its attention half, norms included.
        mlp: For each block the modules of its MLP half; with `attention` the whole block.
    """

    model: Any
    trunk: nn.Module
    embeddings: Sequence[nn.Module]
    blocks: Sequence[nn.Module]
    final_norm: nn.Module
    head: nn.Module
    attention: Sequence[Sequence[nn.Module]] = ()
    mlp: Sequence[Sequence[nn.Module]] = ()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.trunk.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return next(self.trunk.parameters()).dtype

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)
