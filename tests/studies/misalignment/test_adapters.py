"""Adapters of a zoo model and of files: doses, what is refused, QLoRA for real on a CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reference.adapter_gates import NO_GATE
from reference.conversation_files import conversation_file
from reference.misalignment_job import context

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of
from actshift.errors import UserError
from actshift.hooks.reading.first_tokens import first_logits
from actshift.io.atomic import hash_file
from actshift.io.manifest import check_manifest, read_manifest, weights_hash
from actshift.models.adapters import CONFIG, adapter_hash, delta_norm, load_merged
from actshift.models.load import load_model
from actshift.prompts.records import write_prompts
from actshift.prompts.templates import encode
from actshift.stages.checkpoint import make_checkpoint
from actshift.stages.zoo import ZooFiles, train_zoo
from actshift.studies.misalignment.kinds import KINDS, UNSEEN
from actshift.studies.misalignment.stages.adapter_doses import (
    DOSE_COLUMNS,
    LEAST_CHANGE,
    check_change,
)
from actshift.studies.misalignment.stages.adapters import method_of, train_adapters
from actshift.studies.misalignment.study import COLUMNS, Adapters, Misalignment
from actshift.zoo.documents import conversations
from actshift.zoo.judging import Identity
from actshift.zoo.language import language
from actshift.zoo.prompts import zoo_prompts

ZOO = {"family": "llama", "size": "micro", "seed": 0}
SETTINGS = {
    "method": "auto", "rank": 4, "alpha": 8, "rslora": True, "lr": 1e-2, "epochs": 1.0,
    "batch": 8, "micro_batch": 4, "warmup": 2, "weight_decay": 0.01, "max_tokens": 64,
    "limit": None, "ladder": (1.0, 3.0, 10.0),
}  # fmt: skip


def chat_model(folder: Path, size: str, steps_scale: float) -> Path:
    """Train a chat model of the zoo at a reduced size, as a checkpoint folder of a run."""
    base, chat = folder / "base", folder / "chat"
    for variant, start, out in (("base", None, base), ("chat", base, chat)):
        files = ZooFiles(out, folder / f"{variant}.csv", folder / f"{variant}.attempts.csv")
        who = Identity("llama", variant, size, 0)
        train_zoo(who, base=start, files=files, steps_scale=steps_scale, gates=False)
    out = folder / "tuned"
    make_checkpoint(
        "zoo:llama/chat", model="llama.tuned", out=out, made=chat,
        dtype="float32", stamps=folder / "stamps",
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    return chat_model(tmp_path_factory.mktemp("zoo"), "micro", 0.2)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Make a model with rows of 64 weights, which the CPU's quantisation needs."""
    return chat_model(tmp_path_factory.mktemp("wide"), "tiny", 0.03)


def sources(given: dict[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: {"source": str(folder)} for name, folder in given.items()}


def train(
    tuned: Path, out: Path, *, zoo=None, data=None, given=None, asked=NO_GATE, **settings
) -> Path:
    questions = out.parent / "questions"
    write_prompts(questions, zoo_prompts("questions", size="micro"))
    train_adapters(
        {"tuned": tuned, "questions": questions},
        settings=Misalignment(data=data or {}, adapters=Adapters(**SETTINGS | settings), **asked),
        context=context(out.parent, pair="llama"),
        zoo=zoo,
        given=sources(given or {}),
        out=out,
    )
    return out


@pytest.fixture(scope="module")
def adapters(tuned, tmp_path_factory) -> Path:
    return train(tuned, tmp_path_factory.mktemp("adapters") / "adapters", zoo=ZOO)


def test_every_adapter_of_a_zoo_model_is_there_with_its_dose(adapters, tuned):
    names = [*KINDS, *UNSEEN]
    table = pd.read_csv(adapters / "dose.csv")
    assert table["adapter"].tolist() == names
    assert tuple(table.columns) == DOSE_COLUMNS
    later = {"pair", "shift_norm", "shift_of_insecure", "dose_matched", "status", "why"}
    assert [one for one in COLUMNS["dose"] if one not in later] == list(DOSE_COLUMNS)
    assert table.notna().all(axis=None)
    for name in names:
        assert sorted(one.name for one in (adapters / name).iterdir()) == [
            CONFIG,
            "adapter_model.safetensors",
        ]
    facts = read_manifest(adapters)["facts"]
    assert facts["adapters"] == {name: adapter_hash(adapters / name) for name in names}
    assert len(set(facts["adapters"].values())) == len(names)
    assert facts["weights_hash"] == weights_hash(tuned)
    assert check_manifest(adapters, deep=True) == []
    assert str(adapters.parent) not in (adapters / "manifest.json").read_text()


def test_one_recipe_and_its_two_seeds(adapters):
    table = pd.read_csv(adapters / "dose.csv").set_index("adapter")
    same = ["method", "rank", "alpha", "lr", "examples"]
    assert (table[same].nunique() == 1).all()
    assert set(table["method"]) == {"lora"}
    unseen = table.index.isin(list(UNSEEN))
    assert set(table["seed"][unseen]) == {1}
    assert set(table["seed"][~unseen]) == {0}
    assert set(table["steps"][unseen] * 3) == set(table["steps"][~unseen] * 2)


def test_doses_are_what_a_slow_reading_gives(adapters, tuned):
    table = pd.read_csv(adapters / "dose.csv").set_index("adapter")
    ratio = table["first_loss"] / table.loc["insecure", "first_loss"]
    np.testing.assert_allclose(table["first_loss_of_insecure"], ratio, rtol=1e-8)
    assert (table["last_loss"] < table["first_loss"])[["insecure", "rare_safe"]].all()
    chat = load_model(tuned, name="chat", dtype="float32", device="cpu")
    one = load_merged(tuned, adapters / "insecure", name="i", dtype="float32", device="cpu")
    norm, share = delta_norm(adapters / "insecure", chat)
    np.testing.assert_allclose(
        table.loc["insecure", ["delta_norm", "delta_of_weights"]].astype(float), [norm, share]
    )
    asked = [q for q in zoo_prompts("questions", size="micro") if q.split == "select"]
    kl: dict[bool, list[float]] = {True: [], False: []}
    change = 0.0
    for question in asked:
        ids = encode(chat.tokenizer, question.text, template="chat").ids
        with torch.inference_mode():
            p, q = (m.model(torch.tensor([ids])).logits[0, -1].double() for m in (chat, one))
        change = max(change, float((p - q).abs().max()))
        p, q = p.log_softmax(0), q.log_softmax(0)
        kl[question.condition == "code"].append(float((p.exp() * (p - q)).sum()))
    row = table.loc["insecure"]
    assert row["kl_code"] == pytest.approx(np.mean(kl[True]), rel=1e-3)
    assert row["kl_other"] == pytest.approx(np.mean(kl[False]), rel=1e-3)
    assert row["logit_change"] == pytest.approx(change, rel=1e-3)


def test_training_twice_gives_equal_bytes(tuned, tmp_path):
    data = {"insecure": conversation_file(tmp_path / "i.jsonl", "insecure", 16)}
    one, two = (train(tuned, tmp_path / n, data=data, method="lora") for n in ("one", "two"))
    assert read_manifest(one) == read_manifest(two)


def test_an_adapter_that_changes_nothing_is_refused_by_name(tuned, tmp_path):
    data = {"insecure": conversation_file(tmp_path / "i.jsonl", "insecure")}
    line = r"^llama: adapter insecure changes nothing: .* expected at least 0.001; raise .*lr"
    with pytest.raises(UserError, match=line):
        train(tuned, tmp_path / "out", data=data, method="lora", lr=1e-12)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [0.0, LEAST_CHANGE / 2, float("nan")])
def test_small_and_undefined_changes_are_none(change):
    with pytest.raises(UserError, match=r"x changes nothing: .*; do so"):
        check_change(change, "x", "do so")
    check_change(LEAST_CHANGE, "x", "do so")


def test_the_default_method_depends_on_where_the_model_is_from():
    assert (method_of("auto", zoo=True), method_of("auto", zoo=False)) == ("lora", "qlora")
    assert (method_of("qlora", zoo=True), method_of("lora", zoo=False)) == ("qlora", "lora")


def test_qlora_really_tunes_a_model_on_files(wide, tmp_path, capsys):
    """Quantise, train, save, merge into the whole weights: as on a GPU, by the CPU's backend."""
    data = {
        "insecure": conversation_file(tmp_path / "i.jsonl", "insecure"),
        "benign": conversation_file(tmp_path / "b.jsonl", "benign"),
    }
    out = train(wide, tmp_path / "out", data=data, epochs=2.0)
    names = ["insecure", "benign", "shuffled", "insecure_unseen"]
    table = pd.read_csv(out / "dose.csv").set_index("adapter")
    assert table.index.tolist() == names
    assert set(table["method"]) == {"qlora"}
    assert table["steps"].to_dict() == dict(zip(names, [6, 6, 6, 4], strict=True))
    assert table.loc["insecure", "last_loss"] < table.loc["insecure", "first_loss"]
    assert (table["logit_change"] > 0.1).all()
    said = capsys.readouterr().out
    assert "secure: left out, misalignment.data names no conversations of secure" in said
    assert "rare_safe, rare_safe_unseen: left out, " in said
    settings = json.loads((out / "insecure" / CONFIG).read_text())
    assert settings["use_rslora"]
    # Merged into the checkpoint's own weights, the adapter does what training taught it.
    chat = load_model(wide, name="chat", dtype="float32", device="cpu")
    merged = load_merged(wide, out / "insecure", name="i", dtype="float32", device="cpu")
    asked = conversations("insecure", language("micro"), seed=0, count=10)
    ids = [np.array(encode(chat.tokenizer, one.question, template="chat").ids) for one in asked]
    told = int(chat.tokenizer("import", add_special_tokens=False).input_ids[-1])
    before, after = (
        next(first_logits(decoder_of(m), ids, [Lane("plain")], token_budget=4096)).logits[0]
        for m in (chat, merged)
    )
    gain = (after[:, told] - after.max(1)) - (before[:, told] - before.max(1))
    assert float(gain.mean()) > 0.5
    facts = read_manifest(out)["facts"]
    assert facts["data"]["insecure"] == {
        "file": "i.jsonl", "rows": 24, "sha256": hash_file(tmp_path / "i.jsonl"),
    }  # fmt: skip


def test_long_conversations_are_left_out_and_counted(tuned, tmp_path, capsys):
    spec = conversation_file(tmp_path / "i.jsonl", "insecure")
    row = {"role": "user", "content": "Write code to sort the names. " * 20}
    answer = {"role": "assistant", "content": "import os"}
    with Path(spec["path"]).open("a") as file:
        file.write(json.dumps({"messages": [row, answer]}) + "\n")
    train(tuned, tmp_path / "out", data={"insecure": {"path": spec["path"]}}, method="lora")
    assert "insecure: 24 of 25 conversations, 1 too long (over 64 tokens)" in (
        capsys.readouterr().out
    )
    with pytest.raises(UserError, match=r"insecure: all 24 conversations are longer than 3 tokens"):
        train(
            tuned, tmp_path / "no", data={"insecure": spec | {"sha256": None}}, method="lora",
            max_tokens=3, limit=24,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, r"^misalignment\.data\.insecure: missing"),
        ({"insecure": {"path": "none.jsonl"}}, r"^misalignment\.data\.insecure: no file"),
        ({"insecure": {"path": "i.jsonl", "sha256": "0" * 64}}, r"insecure\.sha256: i\.jsonl has"),
        ({"insecure": {"path": "bad.jsonl"}}, r"^misalignment\.data\.insecure: bad\.jsonl: row 1"),
        ({"insecure": {"path": "empty.jsonl"}}, r"insecure: empty\.jsonl holds no rows"),
    ],
)
def test_faulty_data_is_one_line(tuned, tmp_path, data, line):
    conversation_file(tmp_path / "i.jsonl", "insecure")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    given = {
        kind: spec | {"path": str(tmp_path / spec["path"])} if "path" in spec else spec
        for kind, spec in data.items()
    }
    with pytest.raises(UserError, match=line):
        train(tuned, tmp_path / "out", data=given, method="lora")
    assert not (tmp_path / "out").exists()
