"""A tuned model that is the pair's base with an adapter: an ordinary checkpoint of the run."""

from pathlib import Path

import pytest
import torch
from reference.peft_adapters import peft_adapter
from reference.tiny_models import seal_checkpoint, word_tokenizer

from actshift.errors import UserError
from actshift.io.manifest import check_manifest, read_manifest
from actshift.models.load import load_model
from actshift.stages.checkpoint import make_checkpoint
from actshift.stages.merge import merge

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
        f"lora:{tmp_path / 'lora'}", model="p.tuned", revision=None, out=tmp_path / "checkpoint",
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
