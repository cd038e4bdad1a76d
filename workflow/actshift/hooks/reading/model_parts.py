"""A causal language model and its parts, as everything in `hooks` takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from actshift.edits import EditSite

#: Modules by site, one a block: a pre-hook for `resid_pre`, hooks on the output for the rest.
Sites = Mapping[EditSite, Sequence[nn.Module]]


@dataclass(frozen=True)
class CausalModel:
    """A causal language model and its parts.

    Attributes:
        model: Maps `input_ids` to logits, soft caps and scales included.
        trunk: The model without its head: maps `input_ids` to hidden states.
        embeddings: The token embedding, and that of positions where they are learned.
        blocks: Decoder blocks in order.
        final_norm: The norm between the last block and the head.
        head: The language-model head.
        sites: Where lanes may edit it.
        attention: For each block the modules of its attention half, norms included.
        mlp: For each block the modules of its MLP half; with `attention` the whole block.
    """

    model: Any
    trunk: nn.Module
    embeddings: Sequence[nn.Module]
    blocks: Sequence[nn.Module]
    final_norm: nn.Module
    head: nn.Module
    sites: Sites
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
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.head.get_parameter("weight").shape[1]

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)
