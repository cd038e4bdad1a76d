"""LoRA: starts as the model itself, trains its own matrices alone, merges to the same function."""

import pytest
import torch
from torch import nn

from actshift.models.families import Dims, blocks_of, build, embedding_of
from actshift.models.lora import add_lora, merge_lora

DIMS = Dims(vocab_size=64, d_model=32, n_layers=2, d_head=8, d_mlp=48, max_positions=64)
IDS = torch.tensor([[3, 9, 14, 5, 33, 8], [40, 2, 7, 7, 21, 60]])


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3"])
def test_from_the_model_through_training_to_ordinary_weights(family: str) -> None:
    torch.manual_seed(0)
    model = build(family, DIMS)
    names = set(model.state_dict())
    linears = [m for m in blocks_of(model).modules() if isinstance(m, nn.Linear)]
    shapes = [linear.weight.shape for linear in linears]
    plain = model(IDS).logits.detach()
    wrapped = add_lora(model, rank=2, alpha=4)
    torch.testing.assert_close(wrapped(IDS).logits, plain, rtol=0, atol=0)

    trained = [p for p in wrapped.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == sum(2 * (out + into) for out, into in shapes)
    embedding = embedding_of(model).weight.detach().clone()
    wrapped(IDS).logits.square().mean().backward()
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1 * torch.randn(parameter.shape))
    wanted = wrapped(IDS).logits.detach()
    assert float((wanted - plain).abs().max()) > 1e-3

    merged = merge_lora(wrapped)
    assert set(merged.state_dict()) == names
    assert not [p for p in merged.parameters() if p.requires_grad]
    torch.testing.assert_close(merged(IDS).logits, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(embedding_of(merged).weight, embedding)


def test_the_seed_decides_the_start() -> None:
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        model = build("llama", DIMS)
        torch.manual_seed(seed)
        wrapped = add_lora(model, rank=2, alpha=4)
        starts.append([p.detach().clone() for n, p in wrapped.named_parameters() if "lora_A" in n])
    equal = [all(torch.equal(a, b) for a, b in zip(starts[0], s, strict=True)) for s in starts[1:]]
    assert equal == [True, False]
