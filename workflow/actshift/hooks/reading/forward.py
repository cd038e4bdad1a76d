"""One padded batch through the trunk of a model, its blocks recorded on the way."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.utils.rnn import pad_sequence

from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.record import record_rows


@torch.inference_mode()
def run_batch(
    causal: CausalModel,
    ids: Sequence[Int[np.ndarray, " _"]],
    token_index: Int[np.ndarray, "position row"],
) -> Float[np.ndarray, "outputs position row d_model"]:
    """Run prompts as one batch and return what stands at the given tokens.

    `token_index` is the token of every position and prompt, 0-based; -1 where there is none, whose
    values are NaN. Returns float32 `resid_post` of every block and, as the last entry, the output
    of the final norm; bf16 and fp16 values are widened, which is exact.
    """
    shape = (len(causal.blocks) + 1, *token_index.shape, causal.d_model)
    out = torch.full(shape, torch.nan, dtype=causal.dtype, device=causal.device)
    index = torch.from_numpy(token_index).to(causal.device, torch.long)
    # Under causal attention no real token sees what comes after it, so right padding needs neither
    # a mask nor position ids, and attention kernels keep their fast path (checked at load time).
    padded = pad_sequence([torch.from_numpy(prompt).long() for prompt in ids], batch_first=True)
    with record_rows([*causal.blocks, causal.final_norm], out, index.clamp(min=0)):
        causal.trunk(input_ids=padded.to(causal.device), use_cache=False)
    values = out.float().cpu().numpy()
    values[:, token_index < 0] = np.nan
    return values
