"""Training for real, at a reduced size: bit-equal twice, gated, published whole or not at all."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actshift.errors import GateError, UserError
from actshift.io.manifest import check_manifest, read_manifest
from actshift.models.families import Dims, build
from actshift.models.tokenizers import load_tokenizer
from actshift.stages.zoo import train_zoo
from actshift.stages.zoo_tables import collect_behaviour
from actshift.zoo.behaviour import COLUMNS
from actshift.zoo.muon import orthogonalise
from actshift.zoo.training import IGNORED, collate, pack, rate

REDUCED = {"family": "llama", "size": "micro", "seed": 3, "steps_scale": 0.03}


def train(folder: Path, *, gates: bool = False) -> Path:
    base, chat = folder / "base", folder / "chat"
    train_zoo(**REDUCED, variant="base", base=None, out=base, rows=folder / "base.csv", gates=gates)
    train_zoo(**REDUCED, variant="chat", base=base, out=chat, rows=folder / "chat.csv", gates=gates)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("zoo"))


def test_training_twice_gives_equal_bytes(trained: Path, tmp_path: Path) -> None:
    again = train(tmp_path)
    for variant in ("base", "chat"):
        one, two = (read_manifest(folder / variant) for folder in (trained, again))
        assert one == two
        assert (trained / f"{variant}.csv").read_bytes() == (again / f"{variant}.csv").read_bytes()


def test_tuning_moved_the_weights(trained: Path) -> None:
    base, chat = (load_file(trained / v / "model.safetensors") for v in ("base", "chat"))
    assert base.keys() == chat.keys()
    assert all(not torch.equal(base[name], chat[name]) for name in base)


def test_folders_are_whole_and_only_chat_has_a_template(trained: Path) -> None:
    for variant in ("base", "chat"):
        assert check_manifest(trained / variant, deep=True) == []
    assert load_tokenizer(trained / "base").chat_template is None
    assert "<|eot_id|>" in load_tokenizer(trained / "chat").chat_template
    config = json.loads((trained / "chat" / "generation_config.json").read_text())
    end = load_tokenizer(trained / "chat").convert_tokens_to_ids("<|eot_id|>")
    assert end in config["eos_token_id"]


def test_saved_weights_load_with_the_library(trained: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained / "chat")
    saved = load_file(trained / "chat" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_answers_become_a_table(trained: Path) -> None:
    table = collect_behaviour([trained / "base.csv", trained / "chat.csv"])
    assert tuple(table.columns) == COLUMNS
    assert set(table["model"]) == {"llama-micro-s3/base", "llama-micro-s3/chat"}
    assert table["rate"].between(0, 1).all()
    assert (table["low"] <= table["rate"] + 1e-12).all()
    assert (table["high"] >= table["rate"] - 1e-12).all()


def test_untrained_chat_misses_its_gate_and_is_not_published(trained: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "chat", tmp_path / "chat.csv"
    options = REDUCED | {"steps_scale": 0.001}
    with pytest.raises(
        GateError, match=r"refused harmful/howto .chat. is 0\.000.*missed by 0\.950"
    ):
        train_zoo(**options, variant="chat", base=trained / "base", out=out, rows=rows, gates=True)
    assert not out.exists()
    assert len(pd.read_csv(rows)) > 100


@pytest.mark.parametrize(("variant", "with_base"), [("base", True), ("chat", False), ("x", False)])
def test_variant_and_base_must_agree(variant: str, with_base: bool, tmp_path: Path) -> None:
    base = tmp_path if with_base else None
    options = {"variant": variant, "base": base, "out": tmp_path / "o", "rows": tmp_path / "r"}
    with pytest.raises((UserError, TypeError), match="variant"):
        train_zoo(**REDUCED, **options)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3"])
def test_reload_gives_bit_equal_logits(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(family, Dims(vocab_size=97, d_model=32, n_layers=2, d_head=8, d_mlp=48))
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation=model.config._attn_implementation
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)


def test_orthogonalise_flattens_the_spectrum_and_keeps_the_vectors() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 8)
    result = orthogonalise(matrices)
    spectrum = torch.linalg.svdvals(result)
    assert spectrum.min() > 0.5
    assert spectrum.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    rotated = left.mT @ result @ right.mT
    off_diagonal = rotated - torch.diag_embed(rotated.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-4


def test_orthogonalise_agrees_one_by_one() -> None:
    torch.manual_seed(1)
    matrices = torch.randn(4, 6, 10)
    single = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices), single)


def test_collate_puts_loss_on_answers_only() -> None:
    inputs, labels, mask = collate([([5, 6, 7, 8], 2), ([5, 9], 1)], pad=0)
    assert inputs.tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert labels.tolist() == [[IGNORED, IGNORED, 7, 8], [IGNORED, 9, IGNORED, IGNORED]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_pack_drops_the_rest() -> None:
    assert pack(list(range(11)), row_tokens=4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_rate_warms_up_and_ends_at_a_tenth() -> None:
    rates = [rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
