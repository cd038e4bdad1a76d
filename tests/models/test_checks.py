import dataclasses
from functools import partial

import pytest
import torch
from reference.tiny_models import FAMILIES

from actshift.errors import UserError
from actshift.models.checks import (
    check_identity_hook,
    check_model,
    check_padding,
    check_shape,
    run_left_padded,
)
from actshift.models.load import load_model


@pytest.fixture
def loaded(tiny_checkpoint):
    return lambda family="llama", **kw: load_model(
        tiny_checkpoint(family), name="m", device="cpu", **kw
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family, dtype, loaded):
    check_model(loaded(family, dtype=dtype))


def test_left_padding_without_position_ids_is_caught_where_positions_are_absolute(loaded):
    blind = partial(run_left_padded, with_position_ids=False)
    with pytest.raises(UserError, match="left-padded and unpadded runs differ"):
        check_padding(loaded("gpt2"), left_padded=blind)


def test_a_wrong_block_count_is_caught(loaded):
    model = loaded()
    with pytest.raises(UserError, match=r"has 2 decoder blocks, config\.json says 3"):
        check_shape(dataclasses.replace(model, blocks=model.blocks[:2]))


def test_a_block_that_reacts_to_hooks_is_caught(loaded):
    model = loaded()

    def upset(module, _args, output):
        return output * 1.01 if len(module._forward_hooks) > 1 else output

    model.blocks[1].register_forward_hook(upset)
    with pytest.raises(UserError, match="identity hook changes"):
        check_identity_hook(model)


def test_a_model_that_looks_ahead_is_caught(loaded):
    model = loaded()

    def smear(_module, _args, output):
        return output + output.mean(dim=1, keepdim=True)

    model.blocks[0].register_forward_hook(smear)
    with pytest.raises(UserError, match="unpadded runs differ"):
        check_padding(model)


def test_checks_leave_no_hooks_behind(loaded):
    model = loaded()
    check_model(model)
    assert not any(module._forward_hooks for module in model.model.modules())


def test_broken_weights_are_left_to_extraction(loaded):
    model = loaded()
    model.blocks[1].mlp.up_proj.weight.data.fill_(torch.nan)
    check_model(model)
