import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny_models import FAMILIES, seal_checkpoint, word_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Mistral3Config, Mistral3ForConditionalGeneration

from actshift.errors import UserError
from actshift.models.checks import check_model
from actshift.models.families import embedding_of
from actshift.models.load import load_model, options_for, resolve_device


def build_whole(folder: Path, text: str, *, tied: bool) -> Any:
    """A random Mistral 3, images and all, saved with its tokenizer; its embeddings tied or not."""
    torch.manual_seed(0)
    language = {
        "model_type": text,
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if text == "ministral3":
        # The scaling of queries with the position belongs to this architecture.
        language["rope_parameters"] |= {
            "rope_type": "yarn",
            "factor": 1.0,
            "original_max_position_embeddings": 64,
            "llama_4_scaling_beta": 0.1,
        }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 16,
        "patch_size": 8,
    }
    config = Mistral3Config(text_config=language, vision_config=vision, tie_word_embeddings=tied)
    whole = Mistral3ForConditionalGeneration(config).eval()
    whole.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return whole


@pytest.mark.parametrize("text", ["ministral3", "mistral"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("renamed", [False, True])
def test_the_language_model_inside_another_is_that_model(text, tied, renamed, tmp_path):
    whole = build_whole(tmp_path, text, tied=tied)
    if renamed:
        # The names that models have had since transformers 4.52, where a file keeps them.
        named = load_file(tmp_path / "model.safetensors")
        assert any(name.startswith("language_model.model.") for name in named)
        renamed_weights = {
            name.replace("language_model.model.", "model.language_model.").replace(
                "language_model.lm_head", "lm_head"
            ): value
            for name, value in named.items()
        }
        save_file(renamed_weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(tmp_path, name="m", device="cpu")
    assert loaded.model.config.model_type == text
    assert (len(loaded.blocks), loaded.d_model, loaded.vocab_size) == (2, 32, 64)
    check_model(loaded)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        theirs = whole(input_ids=ids, output_hidden_states=True)
        ours = loaded.model(input_ids=ids, output_hidden_states=True)
    assert torch.equal(ours.logits, theirs.logits)
    assert len(ours.hidden_states) == 3
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert torch.equal(mine, other)
    assert (loaded.model.lm_head.weight is embedding_of(loaded.model).weight) == tied


def test_quantisation_of_the_whole_holds_for_its_language_model(tmp_path):
    build_whole(tmp_path, "ministral3", tied=False)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    part = options_for(AutoConfig.from_pretrained(tmp_path))["config"]
    assert part.model_type == "ministral3"
    assert part.quantization_config["quant_method"] == "fp8"


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
