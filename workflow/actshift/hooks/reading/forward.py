"""One padded batch through the trunk of a model, its blocks recorded on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from actshift.hooks.reading.record import record_rows


@dataclass(frozen=True)
class Trunk:
    """A decoder without its language-model head, and where to listen."""

    module: nn.Module
    """Maps `input_ids` to hidden states."""
    blocks: Sequence[nn.Module]
    final_norm: nn.Module
    d_model: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return next(self.module.parameters()).dtype


@torch.inference_mode()
def run_batch(
    trunk: Trunk,
    ids: Sequence[Int[np.ndarray, " _"]],
    token_index: Int[np.ndarray, "position row"],
) -> Float[np.ndarray, "outputs position row d_model"]:
    """Run prompts as one batch and return what stands at the given tokens.

    Args:
        trunk: The model.
        ids: Token ids of each prompt.
        token_index: Token of every position and prompt, 0-based; -1 where there is none, whose
            values are NaN.

    Returns:
        float32 `resid_post` of every block and, as the last entry, the output of the final norm.
        bf16 and fp16 values are widened, which is exact.
    """
    shape = (len(trunk.blocks) + 1, *token_index.shape, trunk.d_model)
    out = torch.full(shape, torch.nan, dtype=trunk.dtype, device=trunk.device)
    index = torch.from_numpy(token_index).to(trunk.device, torch.long)
    # Under causal attention no real token sees what comes after it, so right padding needs neither
    # a mask nor position ids, and attention kernels keep their fast path (checked at load time).
    padded = pad_sequence([torch.from_numpy(one).long() for one in ids], batch_first=True)
    with record_rows([*trunk.blocks, trunk.final_norm], out, index.clamp(min=0)):
        trunk.module(input_ids=padded.to(trunk.device), use_cache=False)
    values = out.float().cpu().numpy()
    values[:, token_index < 0] = np.nan
    return values
