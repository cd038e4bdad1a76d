"""Ablation written into the weights: equal to ablation by hooks, nothing written along it."""

import numpy as np
import pytest
import torch
from reference.tiny_models import FAMILIES

from actshift.edits import Ablate, everywhere
from actshift.errors import UserError
from actshift.hooks.lanes.edit import EditState, edited
from actshift.models.families import Dims, blocks_of, build, edit_sites
from actshift.models.load import load_model
from actshift.models.orthogonalise import orthogonalise

DIMS = Dims(vocab_size=64, d_model=32, n_layers=3, d_head=8, d_mlp=48, max_positions=64)
IDS = torch.tensor([[3, 9, 14, 5, 33, 8], [40, 2, 7, 7, 21, 60]])


def random_model(family: str):
    torch.manual_seed(0)
    model = build(family, DIMS)
    for name, parameter in model.named_parameters():
        # Norm gains and biases too: at their first values half of the arithmetic is invisible.
        scale = 0.3 if "norm" in name or "ln_" in name or parameter.ndim == 1 else 3.0
        parameter.data.mul_(scale if parameter.ndim == 2 else 1.0)
        if parameter.ndim == 1:
            parameter.data.add_(scale * torch.randn(parameter.shape))
    return model.requires_grad_(False)


def frame(k: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).standard_normal((32, k)))[0]


def streams(model, basis: np.ndarray) -> list[torch.Tensor]:
    """Every block's output, `[row, token, k]`, in the coordinates of the basis."""
    seen: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in blocks_of(model)
    ]
    model(input_ids=IDS)
    for handle in handles:
        handle.remove()
    return [hidden @ torch.from_numpy(basis).float() for hidden in seen]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_stays_orthogonal(family, k):
    model, basis = random_model(family), frame(k)
    before = max(float(part.abs().max()) for part in streams(model, basis))
    orthogonalise(model, torch.from_numpy(basis))
    after = max(float(part.abs().max()) for part in streams(model, basis))
    assert before > 0.1
    assert after < 1e-5 * before


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gemma2"])
def test_weights_and_hooks_give_the_same_logits(family):
    model, basis = random_model(family), frame(2)
    plain = model(input_ids=IDS).logits
    lane = everywhere("r", Ablate(basis), n_layers=3)
    with edited(edit_sites(model), [lane], EditState([(0, 2)]), dtype=torch.float32):
        by_hooks = model(input_ids=IDS).logits
    orthogonalise(model, torch.from_numpy(basis))
    by_weights = model(input_ids=IDS).logits
    torch.testing.assert_close(by_weights, by_hooks, rtol=1e-3, atol=1e-4)
    assert float((by_hooks - plain).abs().max()) > 0.05


def test_a_norm_behind_the_matrix_changes_the_scale_and_not_the_direction():
    """Gemma 2: equal to hooks but for the norm's denominator, so nearly equal and not quite."""
    model, basis = random_model("gemma2"), frame(1)
    plain = model(input_ids=IDS).logits
    lane = everywhere("r", Ablate(basis), n_layers=3)
    with edited(edit_sites(model), [lane], EditState([(0, 2)]), dtype=torch.float32):
        by_hooks = model(input_ids=IDS).logits
    orthogonalise(model, torch.from_numpy(basis))
    apart = float((model(input_ids=IDS).logits - by_hooks).norm() / (by_hooks - plain).norm())
    assert 1e-4 < apart < 1.0


def test_the_changed_model_survives_saving(tmp_path, tiny_checkpoint):
    loaded = load_model(tiny_checkpoint("gemma2"), name="m", dtype="float32", device="cpu")
    basis = frame(1)
    orthogonalise(loaded.model, torch.from_numpy(basis))
    wanted = loaded.model(input_ids=IDS).logits
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    again = load_model(tmp_path, name="again", dtype="float32", device="cpu")
    torch.testing.assert_close(again.model(input_ids=IDS).logits, wanted, rtol=0, atol=0)


def test_an_unknown_block_is_named():
    model = random_model("llama")
    block = blocks_of(model)[0]
    block.mlp.out = block.mlp.down_proj
    del block.mlp.down_proj
    with pytest.raises(UserError, match="LlamaDecoderLayer: its output matrices are not known"):
        orthogonalise(model, torch.from_numpy(frame(1)))
