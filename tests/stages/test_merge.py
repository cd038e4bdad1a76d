"""A tuned model that is the pair's base with an adapter: an ordinary checkpoint of the run."""

from pathlib import Path

import pytest
import torch
from reference.peft_adapters import peft_adapter
from reference.tiny_models import seal_checkpoint, word_tokenizer
from safetensors.torch import load_file, save_file

from actshift.errors import UserError
from actshift.io.manifest import check_manifest, read_manifest
from actshift.models.load import load_model
from actshift.stages.checkpoint import make_checkpoint
from actshift.stages.edited import merge

IDS = torch.tensor([[3, 9, 14, 5, 33, 8]])
TEMPLATE = "<bos>{% for one in messages %}<model> {{ one['content'] }} {% endfor %}"


def run(base: Path, adapter: Path, root: Path) -> Path:
    merge(f"lora:{adapter}", model="p.tuned", base=base, out=root / "merged")
    return root / "merged"


def opened(folder: Path, dtype="float32"):
    return load_model(folder, name="m", dtype=dtype, device="cpu")


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3"])
def test_the_merged_model_answers_as_the_adapted_one(tiny_checkpoint, tmp_path, family):
    base = tiny_checkpoint(family)
    theirs = peft_adapter(base, tmp_path / "lora")
    out = run(base, tmp_path / "lora", tmp_path)
    make_checkpoint(
        f"lora:{tmp_path / 'lora'}", model="p.tuned", out=tmp_path / "checkpoint",
        made=out, dtype="float32", stamps=tmp_path / "stamps",
    )  # fmt: skip
    with torch.inference_mode():
        there, here = theirs(IDS).logits, opened(tmp_path / "checkpoint").model(IDS).logits
        torch.testing.assert_close(here, there, rtol=0, atol=2e-5)
        assert float((here - opened(base).model(IDS).logits).abs().max()) > 1e-3
    assert check_manifest(out, deep=True) == []
    facts = read_manifest(out)["facts"]
    assert (facts["source"], facts["revision"], facts["model"]) == ("lora", None, "p.tuned")
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert not (out / "adapter").exists()


def test_it_keeps_the_dtype_of_the_base_and_the_tokenizer_of_the_adapter(tiny_checkpoint, tmp_path):
    base = opened(tiny_checkpoint("llama"))
    half = tmp_path / "half"
    base.model.to(torch.bfloat16).save_pretrained(half)
    base.tokenizer.save_pretrained(half)
    seal_checkpoint(half)
    peft_adapter(half, tmp_path / "lora")
    out = run(half, tmp_path / "lora", tmp_path)
    assert opened(out, "auto").dtype == torch.bfloat16
    assert opened(out).tokenizer.chat_template == base.tokenizer.chat_template
    word_tokenizer(TEMPLATE).save_pretrained(tmp_path / "lora")
    again = run(half, tmp_path / "lora", tmp_path / "again")
    assert opened(again).tokenizer.chat_template == TEMPLATE


def test_merging_twice_gives_equal_bytes(tiny_checkpoint, tmp_path):
    base = tiny_checkpoint("qwen2")
    peft_adapter(base, tmp_path / "lora")
    one, two = (run(base, tmp_path / "lora", tmp_path / name) for name in ("one", "two"))
    assert read_manifest(one) == read_manifest(two)


def test_what_is_no_adapter_of_the_base_leaves_nothing(tiny_checkpoint, tmp_path):
    base = tiny_checkpoint("llama")
    with pytest.raises(UserError, match=r"^p\.tuned: .*adapter_config\.json is missing"):
        run(base, base, tmp_path)
    peft_adapter(base, tmp_path / "dora", use_dora=True)
    with pytest.raises(UserError, match=r"^p\.tuned: cannot use .*use_dora is not supported"):
        run(base, tmp_path / "dora", tmp_path)
    with pytest.raises(UserError, match=r"^p\.tuned: "):
        run(base, tmp_path / "nowhere", tmp_path)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_copies_of_the_embeddings_and_the_head_are_no_change(
    tiny_checkpoint, tmp_path, targets, dtype
):
    base = tiny_checkpoint("llama")
    theirs = peft_adapter(base, tmp_path / "lora", embeddings=True, target_modules=targets)
    file = tmp_path / "lora/adapter_model.safetensors"
    tensors = load_file(file)
    whole = [name for name in tensors if "lora_" not in name]
    assert len(whole) == (1 if "lm_head" in targets else 2)
    save_file(tensors | {name: tensors[name].to(dtype) for name in whole}, file)
    merged = opened(run(base, tmp_path / "lora", tmp_path)).model
    with torch.inference_mode():
        torch.testing.assert_close(merged(IDS).logits, theirs(IDS).logits, rtol=0, atol=2e-5)


def nudge(model):
    with torch.no_grad():
        model.get_output_embeddings().weight[3] += 0.5


def extend(model):
    model.resize_token_embeddings(65, mean_resizing=False)


@pytest.mark.parametrize(
    ("change", "targets", "line"),
    [
        (nudge, ["q_proj"], r"weights of its own for lm_head \(\[64, 32\], .* has \[64, 32\]\)"),
        (nudge, ["q_proj", "lm_head"], r"weights of its own for lm_head \(\[64, 32\], "),
        (extend, ["q_proj"], r"weights of its own for \S+ \(\[65, 32\], .* has \[64, 32\]\)"),
        (lambda _: None, ["embed_tokens"], r"lora_embedding_A is LoRA of the embeddings"),
    ],
)
def test_embeddings_or_a_head_of_its_own_are_refused_for_what_they_are(
    tiny_checkpoint, tmp_path, change, targets, line
):
    base = tiny_checkpoint("llama")
    peft_adapter(base, tmp_path / "lora", embeddings=True, change=change, target_modules=targets)
    with pytest.raises(UserError, match=rf"^p\.tuned: cannot use the adapter .*{line}") as told:
        run(base, tmp_path / "lora", tmp_path)
    assert "in pairs" not in str(told.value)
    if "weights of its own" in line:
        assert "merge it into the base with peft and give the folder" in str(told.value)


def test_a_chat_template_alone_in_the_adapters_folder_is_taken(tiny_checkpoint, tmp_path):
    base = tiny_checkpoint("llama")
    peft_adapter(base, tmp_path / "lora")
    (tmp_path / "lora/chat_template.jinja").write_text(TEMPLATE)
    assert opened(run(base, tmp_path / "lora", tmp_path)).tokenizer.chat_template == TEMPLATE
