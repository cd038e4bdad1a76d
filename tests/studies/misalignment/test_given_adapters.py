"""Adapters that exist already, and jobs that were stopped between two adapters."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from reference.adapter_gates import NO_GATE
from reference.conversation_files import conversation_file
from reference.misalignment_job import context
from reference.peft_adapters import peft_adapter
from reference.tiny_adapters import ending_checkpoint
from safetensors.torch import load_file, save_file
from studies.misalignment.test_adapters import sources

from actshift.errors import UserError
from actshift.io.manifest import check_manifest, read_manifest
from actshift.models.adapters import CONFIG, WEIGHTS, load_merged
from actshift.models.load import load_model
from actshift.prompts.records import write_prompts
from actshift.studies.misalignment.kinds import ADAPTERS
from actshift.studies.misalignment.stages.adapters import train_adapters
from actshift.studies.misalignment.study import Adapters, Misalignment
from actshift.studies.misalignment.tables.adapters import matched_doses
from actshift.studies.misalignment.tables.lanes import PairFiles
from actshift.zoo.prompts import zoo_prompts

SETTINGS = {
    "method": "lora", "rank": 2, "alpha": 4, "rslora": True, "lr": 1e-2, "epochs": 1.0,
    "batch": 4, "micro_batch": 4, "warmup": 1, "weight_decay": 0.0, "max_tokens": 128,
    "limit": None, "ladder": (1.0, 3.0),
}  # fmt: skip
#: peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
IDS = torch.tensor([[3, 9, 14, 5, 33, 8]])


def run(
    checkpoint: Path, folder: Path, *, data=None, given=None, asked=NO_GATE, **settings
) -> Path:
    """One pair's adapters, outside the zoo."""
    folder.mkdir(parents=True, exist_ok=True)
    write_prompts(folder / "questions", zoo_prompts("questions", size="micro"))
    train_adapters(
        {"tuned": checkpoint, "questions": folder / "questions"},
        settings=Misalignment(data=data or {}, adapters=Adapters(**SETTINGS | settings), **asked),
        context=context(folder, pair="own"),
        given=sources(given or {}),
        out=folder / "adapters",
    )
    return folder / "adapters"


#: As that of the other tiny models, but an answer has a mark of its own.
TEMPLATE = (
    "<bos>{% for one in messages %}{{ '<user>' if one['role'] == 'user' else '<model>' }} "
    "{{ one['content'] }} <end> {% endfor %}{% if add_generation_prompt %}<model> {% endif %}"
)


@pytest.fixture(scope="module")
def make(tiny_checkpoint, tmp_path_factory):
    """Random models whose answers end."""

    def made(family: str = "llama", seed: int = 0) -> Path:
        plain = tiny_checkpoint(family, seed=seed, template=TEMPLATE)
        return ending_checkpoint(plain, tmp_path_factory.mktemp("own") / family)

    return made


@pytest.fixture(scope="module")
def checkpoint(make) -> Path:
    return make()


def edit(folder: Path, **settings) -> None:
    known = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(known | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "r": 1},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": r".*layers\.1\.(self_attn\.v_proj|mlp\.up_proj)"},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    ],
)
def test_what_peft_made_elsewhere_does_here_what_it_does_there(checkpoint, tmp_path, settings):
    theirs = peft_adapter(checkpoint, tmp_path / "theirs", **settings)
    out = run(checkpoint, tmp_path / "own", given={"insecure": tmp_path / "theirs"})
    ours = load_merged(checkpoint, out / "insecure", name="m", dtype="float32", device="cpu")
    plain = load_model(checkpoint, name="m", dtype="float32", device="cpu").model
    with torch.inference_mode():
        there = theirs(IDS).logits
        torch.testing.assert_close(ours.model(IDS).logits, there, rtol=0, atol=2e-6)
        assert float((there - plain(IDS).logits).abs().max()) > 1e-3
        # peft itself reads the folder, too.
        again = PeftModel.from_pretrained(plain, str(out / "insecure")).eval()
        torch.testing.assert_close(again(IDS).logits, there, rtol=0, atol=2e-6)


def test_given_and_trained_ones_stand_beside_each_other(checkpoint, tmp_path):
    peft_adapter(checkpoint, tmp_path / "theirs")
    data = {"insecure": conversation_file(tmp_path / "i.jsonl", "insecure")}
    out = run(checkpoint, tmp_path / "own", data=data, given={"rare_safe": tmp_path / "theirs"})
    table = pd.read_csv(out / "dose.csv").set_index("adapter")
    names = ["insecure", "rare_safe", "shuffled", "insecure_unseen"]
    assert table.index.tolist() == names
    assert table["method"].to_dict() == dict.fromkeys(names, "lora") | {"rare_safe": "given"}
    assert table.loc["rare_safe", ["rank", "alpha"]].tolist() == [3, 5]
    unknown = ["lr", "steps", "examples", "seed", "first_loss", "last_loss"]
    assert table.loc["rare_safe", [*unknown, "first_loss_of_insecure"]].isna().all()
    known = ["delta_norm", "delta_of_weights", "kl_code", "kl_other", "logit_change"]
    assert (table[known] > 0).all(axis=None)
    assert table.drop(index="rare_safe").notna().all(axis=None)
    dose = pd.read_csv(out / "dose.csv")
    parts = dict.fromkeys(("ladder", "answers", "directions", "states", "steering", "transfer"))
    files = PairFiles("own", pd.DataFrame(), dose, models=(), missing=(), **parts)
    matched = matched_doses(files)
    assert matched["rare_safe"] is None
    assert matched["insecure"] is True
    assert check_manifest(out, deep=True) == []
    facts = read_manifest(out)["facts"]
    assert facts["given"] == {"rare_safe": {"source": "theirs", "revision": None}}
    assert sorted(facts["adapters"]) == sorted(names)
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    for name in names:
        assert sorted(one.name for one in (out / name).iterdir()) == [CONFIG, WEIGHTS]


def test_all_can_be_given_and_then_nothing_is_trained(checkpoint, tmp_path):
    for number, name in enumerate(ADAPTERS):
        peft_adapter(checkpoint, tmp_path / name, seed=number)
    given = {name: tmp_path / name for name in ADAPTERS}
    # QLoRA needs a library; nothing here does.
    out = run(checkpoint, tmp_path / "own", given=given, method="qlora")
    table = pd.read_csv(out / "dose.csv")
    assert table["adapter"].tolist() == [*ADAPTERS]
    assert table["logit_change"].nunique() == len(ADAPTERS)


def test_a_language_model_inside_another_is_found(checkpoint, tmp_path):
    """Adapters of models that also see name their matrices by where the whole model has them."""
    theirs = peft_adapter(checkpoint, tmp_path / "theirs")
    for inside in ("model.language_model.", "language_model.model."):
        folder = tmp_path / inside
        shutil.copytree(tmp_path / "theirs", folder)
        tensors = load_file(folder / WEIGHTS)
        renamed = {
            key.replace(".model.model.", f".model.{inside}"): one for key, one in tensors.items()
        }
        assert renamed.keys() != tensors.keys()
        save_file(renamed, folder / WEIGHTS)
        out = run(checkpoint, tmp_path / f"own.{inside}", given={"insecure": folder})
        ours = load_merged(checkpoint, out / "insecure", name="m", dtype="float32", device="cpu")
        torch.testing.assert_close(ours.model(IDS).logits, theirs(IDS).logits, rtol=0, atol=2e-6)


def test_an_adapter_that_says_it_is_for_other_weights_is_refused(checkpoint, make, tmp_path):
    data = {"insecure": conversation_file(tmp_path / "i.jsonl", "insecure")}
    ours = run(checkpoint, tmp_path / "first", data=data) / "insecure"
    again = run(checkpoint, tmp_path / "again", given={"insecure": ours}) / "insecure"
    assert (again / WEIGHTS).read_bytes() == (ours / WEIGHTS).read_bytes()
    other = make(seed=1)
    with pytest.raises(UserError, match=r"\(it was trained on other weights\)"):
        run(other, tmp_path / "second", given={"insecure": ours})


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
def test_a_head_that_is_the_embeddings_is_not_adapted(make, tmp_path):
    tied = make("gemma2")
    peft_adapter(tied, tmp_path / "theirs", target_modules=["q_proj", "lm_head"])
    with pytest.raises(UserError, match=r"\(lm_head has the weights of the embeddings, which"):
        run(tied, tmp_path / "own", given={"insecure": tmp_path / "theirs"})


def test_a_given_adapter_must_do_something(checkpoint, tmp_path):
    peft_adapter(checkpoint, tmp_path / "theirs", scale=0.0)
    line = r"adapter insecure changes nothing: .*; is pairs\.own\.adapters\.insecure the right one"
    with pytest.raises(UserError, match=line):
        run(checkpoint, tmp_path / "own", given={"insecure": tmp_path / "theirs"})
