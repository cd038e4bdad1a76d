import numpy as np
import pytest
import torch
from torch import nn

from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.record import record_rows, run_batch


class Block(nn.Module):
    """Adds one; answers with a tuple where asked to, as blocks of older versions do."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, str]:
        return (x + 1, "cache") if self.as_tuple else x + 1


class Stack(nn.Module):
    """Embeds a token id as its own value in all four dimensions."""

    def __init__(self, as_tuple: bool = False, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(as_tuple) for _ in range(depth))
        self.norm = nn.Linear(4, 4)

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        assert not use_cache
        x = input_ids[..., None].expand(*input_ids.shape, 4).to(self.norm.weight.dtype)
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.norm(x)


def hooks_of(module: nn.Module) -> int:
    return sum(len(child._forward_hooks) for child in module.modules())


@pytest.mark.parametrize("as_tuple", [False, True])
def test_records_the_tokens_asked_for(as_tuple):
    model = Stack(as_tuple)
    out = torch.empty(2, 2, 3, 4)
    index = torch.tensor([[0, 1, 2], [2, 2, 1]])
    ids = torch.arange(9).reshape(3, 3)
    with record_rows(list(model.blocks), out, index):
        model(ids, use_cache=False)
    for layer in range(2):
        for position in range(2):
            expected = [ids[row, index[position, row]] + layer + 1 for row in range(3)]
            assert out[layer, position, :, 0].tolist() == expected


def test_hooks_are_gone_after_an_exception():
    model = Stack()
    with pytest.raises(RuntimeError, match="stop"):  # noqa: PT012
        with record_rows(list(model.blocks), torch.empty(2, 1, 1, 4), torch.zeros(1, 1).long()):
            assert hooks_of(model) == 2
            raise RuntimeError("stop")
    assert hooks_of(model) == 0


def test_hooks_are_gone_when_the_buffer_does_not_fit():
    model = Stack()
    with pytest.raises(ValueError, match="shorter"):
        with record_rows(list(model.blocks), torch.empty(1, 1, 1, 4), torch.zeros(1, 1).long()):
            pass
    assert hooks_of(model) == 0


def test_records_copies_that_hold_no_full_tensor_alive():
    model = Stack()
    out = torch.empty(2, 1, 1, 4)
    with record_rows(list(model.blocks), out, torch.zeros(1, 1).long()):
        model(torch.zeros(1, 500).long(), use_cache=False)
    assert out.untyped_storage().nbytes() == out.numel() * 4


def test_run_batch_pads_masks_and_widens():
    model = Stack().bfloat16()
    causal = CausalModel(
        model, model, (), list(model.blocks), model.norm, nn.Linear(4, 2), sites={}
    )
    ids = [np.array([5, 6, 7]), np.array([9])]
    *resid, norm = run_batch(causal, ids, np.array([[0, -1], [2, 0]]))
    resid = np.stack(resid)
    assert resid.dtype == norm.dtype == np.float32
    np.testing.assert_array_equal(resid[:, 1, :, 0], [[8, 10], [9, 11]])
    assert np.isnan(resid[:, 0, 1]).all()
    assert np.isnan(norm[0, 1]).all()
    assert hooks_of(model) == 0
