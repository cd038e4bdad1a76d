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


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("llama", "model.layers.3.mlp.up_proj.weight"),
        ("llama", "model.layers.0.self_attn.q_proj.bias"),
        ("qwen2", "model.layers.0.self_attn.q_norm.weight"),
        ("gemma2", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"),
        ("ministral3", "model.layers.0.mlp.up_proj.weight_scale_inv"),
        ("gpt2", "transformer.h.0.attn.q_norm.weight"),
    ],
)
def test_a_weight_that_would_be_dropped_is_refused(family, key, own_checkpoint):
    folder = own_checkpoint(family)
    weights = load_file(folder / "model.safetensors")
    extra = {key: torch.ones(4), **{f"{key}.more{i}": torch.ones(1) for i in range(3)}}
    save_file(weights | extra, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"m: 4 weights in .* no place in \w+ .*more1, \.\.\.;"
    ) as told:
        load_model(folder, name="m", device="cpu")
    assert key in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("llama", "v_head.summary.weight"),
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gpt2", "transformer.h.0.attn.masked_bias"),
    ],
)
def test_what_no_forward_pass_reads_may_stay(family, key, own_checkpoint):
    folder = own_checkpoint(family)
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {key: torch.ones(4)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    load_model(folder, name="m", device="cpu")


def test_a_copy_of_a_tied_head_may_stay_and_another_head_is_used(own_checkpoint):
    """Gemma ties its head; transformers unties one that the file has with other values."""
    folder = own_checkpoint("gemma2")
    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    for head in (embedding.clone(), torch.randn_like(embedding)):
        whole = weights | {"lm_head.weight": head}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        loaded = load_model(folder, name="m", device="cpu")
        assert torch.equal(loaded.model.get_parameter("lm_head.weight"), head)


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
