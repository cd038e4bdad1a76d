"""Quantised checkpoints: fp8 is read as plain weights, the others are refused by method."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from models.test_load import build_whole
from reference.peft_adapters import peft_adapter
from reference.quantised import METHODS, claim_quantised, fp8_checkpoint
from reference.tiny_models import seal_checkpoint, word_tokenizer
from safetensors.torch import load_file, save_file

from actshift.errors import UserError
from actshift.models.checks import check_model
from actshift.models.families import Dims, build
from actshift.models.load import load_model
from actshift.models.qlora import load_quantised
from actshift.stages.checkpoint import make_checkpoint
from actshift.stages.edited import merge

IDS = torch.tensor([[3, 9, 14, 5, 33, 8]])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose matrices are whole blocks of 128, as those of real fp8 checkpoints are."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wide")
    dims = Dims(vocab_size=128, d_model=256, n_layers=2, d_head=64, d_mlp=384, max_positions=64)
    build("llama", dims).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return seal_checkpoint(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
def test_fp8_is_read_as_plain_weights_of_the_runs_dtype(
    wide: Path, tmp_path: Path, dtype: str
) -> None:
    told = fp8_checkpoint(wide, tmp_path / "fp8")
    loaded = load_model(tmp_path / "fp8", name="m", dtype=dtype, device="cpu")
    wanted = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    assert loaded.dtype == wanted
    weights = loaded.model.state_dict()
    assert weights.keys() == told.keys()
    for name, weight in told.items():
        assert torch.equal(weights[name], weight.to(wanted)), name
    linear = loaded.model.get_submodule("model.layers.0.self_attn.q_proj")
    assert type(linear) is torch.nn.Linear
    check_model(loaded)


def test_a_file_that_names_no_dtype_is_read_too(wide: Path, tmp_path: Path) -> None:
    fp8_checkpoint(wide, tmp_path / "fp8")
    path = tmp_path / "fp8/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in config if key != "dtype"}))
    loaded = load_model(tmp_path / "fp8", name="m", dtype="auto", device="cpu")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


# What an adapter is merged into must not be quantised again when it is saved.
def test_an_adapter_merges_into_fp8_weights(wide: Path, tmp_path: Path) -> None:
    told = fp8_checkpoint(wide, tmp_path / "fp8")
    theirs = peft_adapter(tmp_path / "fp8", tmp_path / "lora")
    out = tmp_path / "merged"
    merge(f"lora:{tmp_path / 'lora'}", model="p.tuned", base=tmp_path / "fp8", out=out)
    saved = load_file(out / "model.safetensors")
    assert saved.keys() == told.keys()
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    merged = load_model(out, name="m", dtype="float32", device="cpu").model
    with torch.inference_mode():
        plain = load_model(tmp_path / "fp8", name="m", dtype="float32", device="cpu").model(IDS)
        there = theirs(IDS).logits
        moved = float((there - plain.logits).norm())
        # bfloat16 rounds each weight to 8 bits; the update is far larger.
        assert float((merged(IDS).logits - there).norm()) < 0.05 * moved


@pytest.mark.parametrize("method", [*METHODS, "torchao"])
def test_other_methods_are_refused_by_name(wide: Path, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "q"
    fp8_checkpoint(wide, folder)
    claim_quantised(folder, method)
    line = rf"quantised \({method}, quantization_config in config\.json\) .*: take the checkpoint"
    with pytest.raises(UserError, match=rf"^m: the weights are {line}"):
        load_model(folder, name="m", dtype="float32", device="cpu")
    with pytest.raises(UserError, match=line):
        make_checkpoint(
            str(folder), model="p.tuned", out=tmp_path / "out", made=None,
            dtype="float32", stamps=tmp_path / "stamps",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_qlora_needs_plain_weights(wide: Path, tmp_path: Path) -> None:
    fp8_checkpoint(wide, tmp_path / "fp8")
    with pytest.raises(UserError, match=r"^m: QLoRA quantises plain weights .* are fp8 already"):
        load_quantised(tmp_path / "fp8", name="m", device="cpu")


# As Ministral 3 is released: a scale a matrix, one for its inputs, images beside the language.
def test_one_scale_a_matrix_inside_a_whole(tmp_path: Path) -> None:
    whole = build_whole(tmp_path / "plain", "ministral3", tied=False)
    shutil.copytree(tmp_path / "plain", tmp_path / "fp8")
    held: dict[str, torch.Tensor] = {}
    told: dict[str, torch.Tensor] = {}
    for name, weight in load_file(tmp_path / "plain/model.safetensors").items():
        inside = name.startswith("language_model.") and "_proj.weight" in name
        scale = weight.abs().max() / 448
        held[name] = (weight / scale).to(torch.float8_e4m3fn) if inside else weight.bfloat16()
        told[name] = held[name].float() * (scale if inside else 1)
        if inside:
            held[name.replace(".weight", ".weight_scale_inv")] = scale
            held[name.replace(".weight", ".activation_scale")] = torch.tensor(0.5)
    save_file(held, tmp_path / "fp8/model.safetensors", metadata={"format": "pt"})
    claim_quantised(
        tmp_path / "fp8", "fp8", activation_scheme="static", weight_block_size=None,
        modules_to_not_convert=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    )  # fmt: skip
    loaded = load_model(tmp_path / "fp8", name="m", dtype="float32", device="cpu")
    assert type(whole).__name__ == "Mistral3ForConditionalGeneration"
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, told[f"language_model.{name}"]), name
