"""QLoRA's base: blocks in NF4, all else whole; what is refused and why."""

import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from reference.tiny_models import seal_checkpoint, word_tokenizer

from actshift.errors import UserError
from actshift.models.families import Dims, blocks_of, build, embedding_of, head_of
from actshift.models.load import load_model
from actshift.models.lora import add_lora
from actshift.models.qlora import adamw, check_installed, load_quantised

IDS = torch.tensor([[3, 9, 14, 5, 33, 8]])


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def wide(request, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    dims = Dims(vocab_size=64, d_model=64, n_layers=2, d_head=16, d_mlp=128, max_positions=64)
    build(request.param, dims).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return seal_checkpoint(folder)


def linears(model):
    return [part for part in blocks_of(model).modules() if isinstance(part, torch.nn.Linear)]


def nf4(weight: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """Round each block of 64 weights to 16 multiples of its largest (not double-quantised)."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - code).abs().argmin(-1)
    return (code[nearest] * scale).reshape(weight.shape)


def test_the_blocks_are_in_nf4_and_the_rest_is_whole(wide):
    whole = load_model(wide, name="t", dtype="float32", device="cpu").model
    model = load_quantised(wide, name="t", device="cpu")
    assert all(isinstance(part, Linear4bit) for part in linears(model))
    for part, other in zip(linears(model), linears(whole), strict=True):
        state = part.weight.quant_state
        assert (state.quant_type, state.nested, part.weight.dtype) == ("nf4", True, torch.uint8)
        told = dequantize_4bit(part.weight.data, state)
        wanted = nf4(other.weight, state.code)
        # Scales are rounded too (double quantisation), to under a percent of the weights.
        assert float((told - wanted).norm() / wanted.norm()) < 0.02
        assert float((told - other.weight).norm() / other.weight.norm()) > 0.05
    for part in (head_of, embedding_of):
        assert torch.equal(part(model).weight, part(whole).weight)
    assert not [weight for weight in model.parameters() if weight.requires_grad]


def test_only_the_update_is_trained(wide):
    wrapped = add_lora(load_quantised(wide, name="t", device="cpu"), rank=2, alpha=4)
    packed = {n: p.clone() for n, p in wrapped.named_parameters() if "lora_" not in n}
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    optimiser = adamw(weights, lr=0.05, weight_decay=0.0)
    assert type(optimiser) is torch.optim.AdamW
    wrapped.train()
    losses = []
    for _ in range(3):
        loss = wrapped(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, packed[n]) for n, p in wrapped.named_parameters() if n in packed)


def test_shapes_that_the_cpu_backend_reads_back_wrongly_are_refused(tiny_checkpoint):
    with pytest.raises(UserError, match=r"^t: QLoRA on a CPU needs .* multiple of 64.* found 32"):
        load_quantised(tiny_checkpoint("llama"), name="t", device="cpu")


def test_a_missing_library_is_one_line_that_says_how_to_get_it(monkeypatch, wide):
    # What Python itself does to a package that cannot be imported.
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"needs bitsandbytes: pip install .* method: lora"):
        load_quantised(wide, name="t", device="cpu")
    monkeypatch.undo()
    check_installed("t")
