import pytest
import torch
from reference.tiny_models import FAMILIES, seal_checkpoint
from safetensors.torch import load_file, save_file

from actshift.errors import UserError
from actshift.models.load import load_model, resolve_device


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_every_family_for_inference(family, tiny_checkpoint):
    loaded = load_model(tiny_checkpoint(family), name="m", device="cpu")
    assert (len(loaded.blocks), loaded.d_model, loaded.vocab_size) == (3, 32, 64)
    assert loaded.dtype == torch.float32
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_gemma_2_gets_the_attention_that_soft_caps(tiny_checkpoint):
    loaded = load_model(tiny_checkpoint("gemma2"), name="m", device="cpu")
    assert loaded.model.config._attn_implementation == "eager"


def test_dtype_is_the_one_asked_for(tiny_checkpoint):
    loaded = load_model(tiny_checkpoint("llama"), name="m", dtype="bfloat16", device="cpu")
    assert loaded.dtype == torch.bfloat16


def test_a_missing_weight_is_not_made_up(own_checkpoint):
    folder = own_checkpoint()
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    seal_checkpoint(folder)
    with pytest.raises(UserError, match=r"1 missing keys .*layers\.1\.mlp\.up_proj"):
        load_model(folder, name="m", device="cpu")


def test_pickled_weights_are_refused(own_checkpoint):
    folder = own_checkpoint()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled weights run code"):
        load_model(folder, name="m", device="cpu")


def test_truncated_weights_are_one_line(own_checkpoint):
    folder = own_checkpoint()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot read the weights") as caught:
        load_model(folder, name="m", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer")]
)
def test_a_missing_file_is_named(name, message, own_checkpoint):
    folder = own_checkpoint()
    (folder / name).unlink()
    with pytest.raises(UserError, match=message):
        load_model(folder, name="m", device="cpu")


def test_remote_code_and_unknown_architectures_are_refused(own_checkpoint):
    folder = own_checkpoint()
    config = (folder / "config.json").read_text().replace('"llama"', '"made_up"')
    (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match="made_up"):
        load_model(folder, name="m", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused():
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(UserError, match="torch sees no GPU"):
        resolve_device("cuda")
