"""The block inputs of the last tokens of every prompt: what refusal directions are made from."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from actshift.hooks.lanes.edit import Place, recorded
from actshift.hooks.lanes.generation import Decoder, left_pad


@torch.inference_mode()
def last_inputs(
    decoder: Decoder, prompts: Sequence[Int[np.ndarray, " _"]], *, width: int, batch: int = 64
) -> Float[np.ndarray, "layer position prompt d_model"]:
    """`resid_pre` of every block at the last `width` tokens of each prompt.

    Prompts are each at least `width` tokens long and are read `batch` at a time, in the order
    given. The last position is the last prompt token. Returns float32,
    widened from bf16 and fp16.
    """
    places: list[Place] = [("resid_pre", i) for i in range(len(decoder.sites["resid_pre"]))]
    parts = []
    for start in range(0, len(prompts), batch):
        ids, mask, position = left_pad(prompts[start : start + batch], decoder)
        seen: dict[Place, torch.Tensor] = {}
        with recorded(decoder.sites, set(places), seen):
            decoder.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                use_cache=False,
                logits_to_keep=1,
            )
        rows = [seen[place][:, -width:].float().cpu().transpose(0, 1) for place in places]
        parts.append(torch.stack(rows).numpy())
    return np.concatenate(parts, axis=2)
