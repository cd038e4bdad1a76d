"""Adapter folders: bytes depend on training alone, loading merges, bases are told apart."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference.tiny_models import build_checkpoint
from safetensors.torch import load_file, save_file

from actshift.errors import UserError
from actshift.io.manifest import weights_hash
from actshift.models.adapters import (
    CONFIG,
    WEIGHTS,
    adapter_hash,
    delta_norm,
    load_merged,
    merged_hash,
    save_adapter,
)
from actshift.models.families import embedding_of, head_of
from actshift.models.load import load_model
from actshift.models.lora import add_lora, merge_lora

IDS = torch.tensor([[3, 9, 14, 5, 33, 8], [40, 2, 7, 7, 21, 60]])


def opened(folder: Path):
    return load_model(folder, name="tiny", dtype="float32", device="cpu")


def adapted(checkpoint: Path, folder: Path, *, rslora: bool = False):
    """Save an adapter with weights of its own; returns the merged model of the training."""
    torch.manual_seed(1)
    wrapped = add_lora(opened(checkpoint).model, rank=3, alpha=6, rslora=rslora, head=True)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape))
    save_adapter(wrapped, folder, base=weights_hash(checkpoint))
    return merge_lora(wrapped)


def load(checkpoint: Path, folder: Path, dtype: str = "float32"):
    return load_merged(checkpoint, folder, name="tiny", dtype=dtype, device="cpu")


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3"])
def test_what_was_trained_is_what_is_loaded_bit_for_bit(tiny_checkpoint, tmp_path, family):
    checkpoint = tiny_checkpoint(family)
    merged = adapted(checkpoint, tmp_path / "a")
    loaded = load(checkpoint, tmp_path / "a")
    before = opened(checkpoint).model.state_dict()
    after = loaded.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(value, after[name]) for name, value in merged.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(loaded.model(IDS).logits, merged(IDS).logits)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    own = head_of(loaded.model).weight is not embedding_of(loaded.model).weight
    heads = {"lm_head.weight"} if own else set()
    assert moved == {name for name in before if "_proj.weight" in name} | heads
    assert not [weight for weight in loaded.model.parameters() if weight.requires_grad]


def test_another_dtype_is_a_rounding_after_the_sum(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("llama")
    whole = adapted(checkpoint, tmp_path / "a").state_dict()
    half = load(checkpoint, tmp_path / "a", "bfloat16").model.state_dict()
    assert all(torch.equal(half[name], value.bfloat16()) for name, value in whole.items())
    own = load(checkpoint, tmp_path / "a", "auto")
    assert own.dtype == torch.float32


def test_a_folder_names_no_path_and_holds_two_files(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("llama")
    adapted(checkpoint, tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [CONFIG, WEIGHTS]
    text = (tmp_path / "a" / CONFIG).read_text()
    assert str(tmp_path) not in text
    assert str(checkpoint) not in text
    settings = json.loads(text)
    assert settings["target_modules"] == sorted(settings["target_modules"])
    assert settings["base_model_name_or_path"].endswith(weights_hash(checkpoint))


PROGRAM = """
import sys, torch
from pathlib import Path
from actshift.models.adapters import save_adapter
from actshift.models.families import Dims, build
from actshift.models.lora import add_lora
torch.set_num_threads(1)
torch.manual_seed(0)
model = build("llama", Dims(vocab_size=64, d_model=32, n_layers=2, d_head=8, d_mlp=48))
wrapped = add_lora(model, rank=2, alpha=4, head=True)
save_adapter(wrapped, Path(sys.argv[1]), base="0" * 64)
"""


def test_bytes_do_not_depend_on_the_process(tmp_path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / seed / "adapter")],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
        if not (tmp_path / seed).mkdir()
    ]
    errors = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    for name in (CONFIG, WEIGHTS):
        one, two = ((tmp_path / seed / "adapter" / name).read_bytes() for seed in ("1", "2"))
        assert one == two
    assert adapter_hash(tmp_path / "1" / "adapter") == adapter_hash(tmp_path / "2" / "adapter")


def test_another_base_is_another_model_and_is_refused(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("llama")
    other = build_checkpoint(tmp_path / "other", "llama", seed=7)
    adapted(checkpoint, tmp_path / "a")
    assert merged_hash(checkpoint, tmp_path / "a") != merged_hash(other, tmp_path / "a")
    with pytest.raises(UserError, match=r"tiny: the adapter in .* trained on other weights"):
        load(other, tmp_path / "a")
    (other / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json: names no hash of weights"):
        load(other, tmp_path / "a")


def test_the_same_training_on_another_base_is_another_adapter(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("llama")
    other = build_checkpoint(tmp_path / "other", "llama", seed=7)
    adapted(checkpoint, tmp_path / "a")
    adapted(other, tmp_path / "b")
    assert adapter_hash(tmp_path / "a") != adapter_hash(tmp_path / "b")


def test_other_weights_are_another_adapter(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("llama")
    adapted(checkpoint, tmp_path / "a")
    before = adapter_hash(tmp_path / "a")
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    first = sorted(tensors)[0]
    tensors[first][0, 0] += 1e-3
    save_file(tensors, tmp_path / "a" / WEIGHTS, metadata={"format": "pt"})
    assert adapter_hash(tmp_path / "a") != before
    del tensors[first]
    save_file(tensors, tmp_path / "a" / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"tiny: cannot add the adapter in .*delete this folder"):
        load(checkpoint, tmp_path / "a")
    (tmp_path / "a" / WEIGHTS).unlink()
    with pytest.raises(UserError, match=rf"{WEIGHTS} is missing"):
        load(checkpoint, tmp_path / "a")


@pytest.mark.parametrize("rslora", [False, True])
def test_the_norm_is_that_of_the_difference_of_the_weights(tiny_checkpoint, tmp_path, rslora):
    checkpoint = tiny_checkpoint("llama")
    after = adapted(checkpoint, tmp_path / "a", rslora=rslora).state_dict()
    base = opened(checkpoint)
    before = base.model.state_dict()
    names = [name for name in before if "_proj.weight" in name or name == "lm_head.weight"]
    moved = sum(float((after[n].double() - before[n].double()).square().sum()) for n in names)
    whole = sum(float(before[n].double().square().sum()) for n in names)
    norm, share = delta_norm(tmp_path / "a", base)
    assert norm == pytest.approx(math.sqrt(moved), rel=1e-5)
    assert share == pytest.approx(math.sqrt(moved / whole), rel=1e-5)


@pytest.mark.parametrize("setting", ["use_dora", "modules_to_save", "rank_pattern"])
def test_what_is_no_plain_lora_is_refused_by_the_name_of_the_setting(
    tiny_checkpoint, tmp_path, setting
):
    checkpoint = tiny_checkpoint("llama")
    adapted(checkpoint, tmp_path / "a")
    path = tmp_path / "a" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: {"q_proj": 4}}))
    with pytest.raises(UserError, match=rf"tiny: cannot add the adapter .*{setting}"):
        load(checkpoint, tmp_path / "a")
