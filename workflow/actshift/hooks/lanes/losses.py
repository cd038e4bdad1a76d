"""How much an edit costs on plain text: the loss of every text in every lane, in one batch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.edits import Lane
from actshift.hooks.lanes.edit import EditState, edited
from actshift.hooks.lanes.fork import Fork, forked, shared_blocks
from actshift.hooks.lanes.generation import Decoder, left_pad

#: Logits held at once, in numbers: on a CPU what its caches still help with, on a GPU a gigabyte.
LOGITS = {"cpu": 2**24, "cuda": 2**28}


def predicted_tokens(texts: Sequence[Int[np.ndarray, " _"]]) -> list[int]:
    """How many tokens of each text are predicted: all but its first."""
    return [max(0, len(text) - 1) for text in texts]


@torch.inference_mode()
def lane_losses(
    decoder: Decoder, texts: Sequence[Int[np.ndarray, " _"]], lanes: Sequence[Lane]
) -> Float[np.ndarray, "lane text"]:
    """Loss of every text in every lane: - sum_t log p(x_t | x_<t), t from the second token on.

    The whole text counts as a prompt: edits at `all` or `prompt` act at all its tokens, those at
    `last_prompt` at its last one alone, which predicts nothing, so they change no loss. Texts
    include special tokens. Returns nats, float64, summed over the predicted tokens of a text
    (`predicted_tokens`).

    Raises:
        ValueError: A lane patches from a donor, or names a layer that is not there.
    """
    patching = [lane.name for lane in lanes if lane.needs_donor]
    if patching:
        raise ValueError(f"lane {patching[0]} patches from a donor; losses have none")
    ids, mask, position = left_pad(texts, decoder)
    each, blocks = len(texts), decoder.sites["resid_post"]
    state = EditState([(i * each, (i + 1) * each) for i in range(len(lanes))])
    fork = Fork(shared_blocks(lanes, len(blocks)))
    fork.set(torch.arange(each, device=ids.device).repeat(len(lanes)), each)
    with forked(blocks, fork), edited(decoder.sites, lanes, state, dtype=decoder.dtype):
        out = decoder.model(
            input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False
        )
    nats = _text_losses(out.logits.view(len(lanes), each, *out.logits.shape[1:]), ids, mask)
    return nats.cpu().numpy()


def lanes_a_batch(texts: Sequence[Int[np.ndarray, " _"]], decoder: Decoder, budget: int) -> int:
    """How many lanes fit beside each other under a token budget and the memory of the logits.

    `budget` is the most padded tokens of a batch; at least one lane fits.
    """
    tokens = len(texts) * max(len(text) for text in texts)
    vocab = decoder.model.get_output_embeddings().weight.shape[0]
    return max(1, min(budget, LOGITS.get(decoder.device.type, 2**24) // vocab) // tokens)


def _text_losses(
    logits: Float[Tensor, "lane text token vocab"],
    ids: Int[Tensor, "text token"],
    mask: Int[Tensor, "text token"],
) -> Float[Tensor, "lane text"]:
    """Sum over the tokens whose predecessor is a real one, not padding."""
    losses_of_lanes = []
    for lane in logits:  # one at a time: each needs several arrays of the logits' size
        wide = lane[:, :-1].float()
        chosen = wide.gather(-1, ids[:, 1:, None]).squeeze(-1)
        losses = (torch.logsumexp(wide, dim=-1) - chosen).double()
        losses_of_lanes.append((losses * mask[:, :-1]).sum(dim=1))
    return torch.stack(losses_of_lanes)
