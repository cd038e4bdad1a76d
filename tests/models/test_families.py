"""The table of architectures: every row builds, and its paths lead to the right parts."""

import pytest
import torch
from torch import nn

from actshift.errors import UserError
from actshift.models.families import (
    FAMILIES,
    Dims,
    blocks_of,
    build,
    embedding_of,
    family_of,
    final_norm_of,
    head_of,
)

DIMS = Dims(vocab_size=61, d_model=32, n_layers=3, d_head=8, d_mlp=40)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_parts_have_the_asked_sizes(family: str) -> None:
    model = build(family, DIMS)
    assert model.config.model_type == family
    assert len(blocks_of(model)) == DIMS.n_layers
    assert embedding_of(model).weight.shape == (DIMS.vocab_size, DIMS.d_model)
    assert head_of(model).weight.shape == (DIMS.vocab_size, DIMS.d_model)
    assert final_norm_of(model).weight.shape == (DIMS.d_model,)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_head_of_norm_of_last_block_is_the_logits(family: str) -> None:
    torch.manual_seed(0)
    model = build(family, DIMS)
    seen: dict[str, torch.Tensor] = {}
    handles = [
        blocks_of(model)[-1].register_forward_hook(
            lambda _m, _i, out: seen.update(block=out[0] if isinstance(out, tuple) else out)
        )
    ]
    with torch.no_grad():
        logits = model(torch.arange(12)[None]).logits
        again = head_of(model)(final_norm_of(model)(seen["block"]))
    for handle in handles:
        handle.remove()
    if family == "gemma2":
        cap = model.config.final_logit_softcapping
        again = torch.tanh(again / cap) * cap
    torch.testing.assert_close(logits, again)


def test_gemma_is_eager() -> None:
    assert build("gemma2", DIMS).config._attn_implementation == "eager"


def test_seed_decides_the_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(torch.nn.utils.parameters_to_vector(build("qwen2", DIMS).parameters()))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_unknown_architecture_names_the_line_to_add() -> None:
    with pytest.raises(UserError, match=r'Family\("mamba".*models/families\.py'):
        family_of("mamba")


def test_wrong_path_names_the_row() -> None:
    class Headless(nn.Module):
        config = build("llama", DIMS).config

    with pytest.raises(UserError, match=r"lm_head.*models/families\.py"):
        head_of(Headless())
