"""Losses of texts x lanes in one batch against one forward pass a text with a simple hook."""

from typing import Any

import numpy as np
import pytest
import torch
from hooks.test_lanes import open_decoder
from reference.edits import apply_edit
from reference.tiny_models import FAMILIES

from actshift.edits import Ablate, Lane, Patch, Placed, Steer
from actshift.hooks.lanes.generation import Decoder
from actshift.hooks.lanes.losses import lane_losses, lanes_a_batch, predicted_tokens

WIDTH = 32


def make_lanes() -> list[Lane]:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((WIDTH, 3)))[0]
    vector = rng.standard_normal(WIDTH)
    return [
        Lane("plain"),
        Lane("zero", (Placed(Ablate(basis), 0), Placed(Ablate(basis[:, :1]), 2))),
        Lane("mean", (Placed(Ablate(basis, centre=vector), 1),)),
        Lane("steer", (Placed(Steer(vector, 2.0), 1),)),
    ]


def texts() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(2, 64, size=n) for n in (5, 2, 11, 1, 8)]


def loss_alone(decoder: Decoder, text: np.ndarray, lane: Lane) -> float:
    """No padding, no batch: every block's output edited by the reference arithmetic."""

    def hook_of(placed: Placed) -> Any:
        def hook(_module: Any, _args: Any, out: Any) -> Any:
            hidden = out[0] if isinstance(out, tuple) else out
            changed = apply_edit(placed.edit, hidden[0].double().numpy())
            new = torch.from_numpy(changed)[None].to(hidden.dtype)
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return hook

    blocks = decoder.sites["resid_post"]
    handles = [blocks[one.layer].register_forward_hook(hook_of(one)) for one in lane.edits]
    ids = torch.from_numpy(text)[None]
    with torch.inference_mode():
        logits = decoder.model(input_ids=ids).logits[0].double()
    for handle in handles:
        handle.remove()
    return float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_lanes_is_one_forward_pass_after_another(family, tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint(family))
    found = lane_losses(decoder, texts(), make_lanes())
    wanted = [[loss_alone(decoder, one, lane) for one in texts()] for lane in make_lanes()]
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-4)
    assert np.abs(found[1:, 2] - found[0, 2]).min() > 1e-3  # every edit does something


def test_one_token_predicts_nothing():
    assert predicted_tokens(texts()) == [4, 1, 10, 0, 7]


def test_a_single_token_has_no_loss(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("llama"))
    assert lane_losses(decoder, [np.array([5])], [Lane("plain")])[0, 0] == 0.0


def test_a_patch_is_refused(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("llama"))
    with pytest.raises(ValueError, match="lane p patches from a donor"):
        lane_losses(decoder, texts(), [Lane("p", (Placed(Patch(), 0),))])


def test_batches_keep_to_the_budget_and_hold_at_least_one_lane(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("llama"))
    assert lanes_a_batch(texts(), decoder, 5 * 11 * 7) == 7
    assert lanes_a_batch(texts(), decoder, 3) == 1
