"""Where an answer begins: logits of its first token, block inputs of the last prompt tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from actshift.edits import Lane
from actshift.hooks.lanes.edit import Place, recorded
from actshift.hooks.lanes.generation import Decoder, generate_lanes, left_pad
from actshift.packing import greedy

_LANES_A_CALL = 16


@dataclass(frozen=True)
class FirstLogits:
    """What one pass gave.

    Attributes:
        lanes: Which lanes ran.
        prompts: On which prompts.
        logits: Of the first answer token, float32.
    """

    lanes: slice
    prompts: slice
    logits: Float[np.ndarray, "lane prompt vocab"]


def first_logits(
    decoder: Decoder,
    prompts: Sequence[Int[np.ndarray, " _"]],
    lanes: Sequence[Lane],
    *,
    token_budget: int,
) -> Iterator[FirstLogits]:
    """Read every prompt in every lane, as many at once as the budget allows.

    All logits of many lanes would not fit into memory: reduce each part as it comes. No lane
    patches. `token_budget` is the most padded tokens of a pass over all its lanes; one row always
    runs. Yields every (lane, prompt) once; prompts stay in the order given.
    """

    def fits(places: list[int]) -> bool:
        return len(places) * max(len(prompts[place]) for place in places) <= token_budget

    for places in greedy(range(len(prompts)), fits):
        part = slice(places[0], places[-1] + 1)
        batch = prompts[part]
        tokens = len(batch) * max(len(ids) for ids in batch)
        width = max(1, min(_LANES_A_CALL, token_budget // tokens))
        for start in range(0, len(lanes), width):
            chosen = slice(start, min(start + width, len(lanes)))
            generated = generate_lanes(decoder, batch, lanes[chosen], max_new=1)
            yield FirstLogits(chosen, part, generated.first_logits)


@torch.inference_mode()
def last_inputs(
    decoder: Decoder, prompts: Sequence[Int[np.ndarray, " _"]], *, width: int, batch: int = 64
) -> Float[np.ndarray, "layer position prompt d_model"]:
    """`resid_pre` of every block at the last `width` tokens of each prompt.

    Prompts are each at least `width` tokens long and are read `batch` at a time, in the order
    given. The last position is the last prompt token. Returns float32.
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
