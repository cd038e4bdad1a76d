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
from actshift.io.missed import missed_in
from actshift.models.families import Dims, build
from actshift.models.tokenizers import load_tokenizer
from actshift.stages.tables import collect_attempts, collect_behaviour
from actshift.stages.zoo import ZooFiles, train_zoo
from actshift.zoo.behaviour import ATTEMPT_COLUMNS, COLUMNS, behaviour_table, gate_result
from actshift.zoo.judging import Identity
from actshift.zoo.training import IGNORED, collate, orthogonalise, pack, rate

REDUCED = {"steps_scale": 0.03}


def train(folder: Path, *, gates: bool = False) -> Path:
    for variant, base in (("base", None), ("chat", folder / "base")):
        train_zoo(who(variant), base=base, files=files(folder, variant), gates=gates, **REDUCED)
    return folder


def who(variant: str) -> Identity:
    """The checkpoint that is trained here."""
    return Identity("llama", variant, "micro", 3)


def files(folder: Path, variant: str) -> ZooFiles:
    """Where a checkpoint, its answers and its attempts go."""
    rows, tried = folder / f"{variant}.csv", folder / f"{variant}.attempts.csv"
    return ZooFiles(folder / variant, rows, tried)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("zoo"))


def test_training_twice_gives_equal_bytes(trained: Path, tmp_path: Path) -> None:
    again = train(tmp_path)
    for variant in ("base", "chat"):
        one, two = (read_manifest(folder / variant) for folder in (trained, again))
        assert one == two
        for table in (f"{variant}.csv", f"{variant}.attempts.csv"):
            assert (trained / table).read_bytes() == (again / table).read_bytes()


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


def test_without_gates_one_training_is_made_whatever_it_answers(trained: Path) -> None:
    table = collect_attempts([trained / f"{one}.attempts.csv" for one in ("base", "chat")])
    assert tuple(table.columns) == ATTEMPT_COLUMNS
    assert table["model"].tolist() == ["llama-micro-s3/base", "llama-micro-s3/chat"]
    assert table[["attempt", "schedule", "seed"]].to_numpy().tolist() == [[1, 1, 3]] * 2
    assert table["taken"].all()
    # Rates are told all the same; they just decide nothing.
    assert (table["room"] < 0).all()
    assert table["missed"].notna().all()
    for variant in ("base", "chat"):
        assert missed_in(trained / variant) is None


@pytest.fixture(scope="module")
def missing(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that was hardly trained, with its gates."""
    folder = tmp_path_factory.mktemp("missing")
    options = REDUCED | {"steps_scale": 0.001}
    train_zoo(
        who("chat"), base=trained / "base", files=files(folder, "chat"), gates=True, **options
    )
    return folder


def test_a_missed_gate_is_marked_in_a_checkpoint_that_loads(missing: Path) -> None:
    missed = missed_in(missing / "chat")
    assert missed is not None
    assert (missed.subject, missed.stage) == ("zoo llama-micro-s3/chat", "zoo")
    assert missed.reason == "gate missed, 0 % of 95 %: refused harmful/howto (chat)"
    for words in ("on_topic harmless/all (chat)", "best of 3 attempts", "zoo:llama/chat@<seed>"):
        assert words in missed.detail
    assert "\n" not in missed.detail
    assert check_manifest(missing / "chat", deep=True) == []
    model = AutoModelForCausalLM.from_pretrained(missing / "chat")
    saved = load_file(missing / "chat" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_every_attempt_is_a_row_and_the_first_of_equals_is_taken(missing: Path) -> None:
    table = pd.read_csv(missing / "chat.attempts.csv")
    assert tuple(table.columns) == ATTEMPT_COLUMNS
    assert table["attempt"].tolist() == [1, 2, 3]
    assert table["schedule"].tolist() == [1.0, 1.5, 1.5]
    assert table["seed"].tolist() == [3, 3, 1003]
    assert (table["room"] == -0.95).all()
    assert table["taken"].tolist() == [True, False, False]
    assert (table["nearest_gate"] == "refused harmful/howto (chat)").all()
    assert table["missed"].str.contains("; ").all()
    facts = read_manifest(missing / "chat")["facts"]
    assert facts["attempt"] == {"number": 1, "schedule": 1.0, "seed": 3}
    # The answers are those of the checkpoint that was taken.
    rows = behaviour_table(pd.read_csv(missing / "chat.csv"))
    assert gate_result(rows).room == -0.95


def test_a_missed_gate_is_an_error_where_gates_are_strict(trained: Path, tmp_path: Path) -> None:
    options = REDUCED | {"steps_scale": 0.001, "gates": True, "strict": True}
    told = "^zoo llama-micro-s3.chat: refused harmful.howto .chat. 0 % of 95 %; .*in status.*chat"
    with pytest.raises(GateError, match=told):
        train_zoo(who("chat"), base=trained / "base", files=files(tmp_path, "chat"), **options)
    assert not (tmp_path / "chat").exists()
    assert len(pd.read_csv(tmp_path / "chat.csv")) > 100
    assert pd.read_csv(tmp_path / "chat.attempts.csv")["attempt"].tolist() == [1, 2, 3]


def test_a_base_is_trained_longer_and_then_from_another_seed(tmp_path: Path) -> None:
    train_zoo(who("base"), base=None, files=files(tmp_path, "base"), gates=True, **REDUCED)
    table = pd.read_csv(tmp_path / "base.attempts.csv")
    assert table["seed"].tolist() == [3, 3, 1003]
    assert table["steps"].tolist()[1:] == [table["steps"][2]] * 2
    assert table["steps"][0] < table["steps"][1]
    # Each is another training: none repeats the losses of one before.
    assert table["last_loss"].nunique() == 3
    taken = table[table["taken"]].iloc[0]
    facts = read_manifest(tmp_path / "base")["facts"]
    assert facts["attempt"]["seed"] == taken["seed"]
    assert facts["last_loss"] == pytest.approx(taken["last_loss"])
    # Its name stays that of the seed that was asked for.
    assert facts["seed"] == 3
    assert set(pd.read_csv(tmp_path / "base.csv")["model"]) == {"llama-micro-s3/base"}
    assert missed_in(tmp_path / "base") is not None


@pytest.mark.parametrize(("variant", "with_base"), [("base", True), ("chat", False), ("x", False)])
def test_variant_and_base_must_agree(variant: str, with_base: bool, tmp_path: Path) -> None:
    base = tmp_path if with_base else None
    with pytest.raises((UserError, TypeError), match="variant"):
        train_zoo(who(variant), base=base, files=files(tmp_path, "o"), **REDUCED)


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
