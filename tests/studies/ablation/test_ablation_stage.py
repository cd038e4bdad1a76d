"""The ablation stage on random models: files, determinism, resume after a kill, refusals."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.processes import kill_between_parts
from reference.stores import rows_like
from reference.tiny_models import WORDS

from actshift.engine.context import JobContext
from actshift.errors import UserError
from actshift.io.layout import plan_layout
from actshift.io.tables import read_table
from actshift.io.writer import StoreWriter
from actshift.prompts.records import Prompt, read_prompts, write_prompts
from actshift.studies.ablation.stage import ablation
from actshift.studies.ablation.study import Ablation
from actshift.vocab import ROLES

SETTINGS = Ablation(
    ks=(1, 2, 40),
    directions=3,
    random_draws=2,
    patch_draws=1,
    n_heldout=4,
    n_fitted=3,
    max_new=3,
    token_budget=400,
)
ROW_FILES = ("heldout", "fitted", "substitution", "mode_toggle")
LAYERS, WIDTH = 3, 32


def make_set(path: Path, condition: str, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    rows = [
        Prompt(
            id=f"{condition}-{i}",
            text=" ".join(rng.choice(WORDS, size=int(rng.integers(2, 9)))),
            condition=condition,
            category="a",
            cluster=f"{condition}{i // 2}",
            split=("fit", "fit", "heldout")[i // 2 % 3],
            source="test",
        )
        for i in range(36)
    ]
    write_prompts(path, rows)
    return path


def make_stores(root: Path, prompts: dict[str, Path]) -> list[Path]:
    """Activations from nowhere: the stage must take frames from stores, not from the models."""
    folders = []
    rng = np.random.default_rng(3)
    for role in ROLES:
        for name, path in prompts.items():
            ids = [prompt.id for prompt in read_prompts(path)]
            for template in ("raw", "chat"):
                values = rng.standard_normal((LAYERS, 1, len(ids), WIDTH)).astype(np.float32)
                values += 3.0 * (role == "tuned") * (name == "harmful")
                folder = root / f"pair.{role}" / f"{name}.{template}"
                layout = plan_layout(layers=LAYERS, positions=1, prompts=len(ids), d_model=WIDTH)
                labels = dataclasses.replace(rows_like(values), prompt_ids=ids)
                writer = StoreWriter(folder, layout, labels, attrs={"seed": 0}, dtype="float32")
                for window in writer.missing():
                    start, stop = layout.span(window)
                    block = values[:, :, start:stop]
                    writer.write(window, resid_post=block, final_norm=block[-1], model="m")
                writer.finish({"key": "k"})
                folders.append(folder)
    return folders


def make_inputs(checkpoints: list[Path], root: Path) -> dict[str, Any]:
    names = ("harmful", "harmless")
    prompts = {
        name: make_set(root / f"{name}.jsonl", name, seed) for seed, name in enumerate(names)
    }
    stores = make_stores(root / "activations", prompts)
    return {**dict(zip(ROLES, checkpoints, strict=True)), "stores": stores, **prompts}


def run(inputs: dict[str, Any], root: Path, **changes: Any) -> Path:
    ablation(
        inputs,
        settings=SETTINGS.model_copy(update=changes),
        openers=("how",),
        context=JobContext("run", "pair", "float32", "cpu", 0, "c", root / "staging"),
        out=root / "ablation",
    )
    return root / "ablation"


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint, tmp_path_factory) -> list[Path]:
    """Two random models that can end."""
    found = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("pair") / f"m{seed}"
        shutil.copytree(tiny_checkpoint("llama", seed=seed), folder)
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [4]}))
        found.append(folder)
    return found


@pytest.fixture(scope="module")
def inputs(checkpoints, tmp_path_factory) -> dict[str, Any]:
    return make_inputs(checkpoints, tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory) -> Path:
    return run(inputs, tmp_path_factory.mktemp("whole"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_file_is_there_and_rows_are_those_of_its_lanes(folder):
    lanes = read_table(folder / "lanes.csv")
    parts = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ROW_FILES}
    patched = {"substitution", "mode_toggle"}
    wanted = {
        "heldout": set(lanes.loc[~lanes["experiment"].isin(patched), "lane"]),
        **{name: set(lanes.loc[lanes["experiment"] == name, "lane"]) for name in patched},
    }
    for name, names in wanted.items():
        assert set(parts[name]["lane"]) == names | {"plain"}
    fitted = lanes[(lanes["experiment"] == "sweep") & (lanes["edit"] == "zero")]
    fitted = fitted[fitted["draw"].isna() | (fitted["draw"] == 0)]
    assert set(parts["fitted"]["lane"]) == set(fitted["lane"]) | {"plain"}
    assert lanes["lane"].is_unique
    assert lanes["k"].max() == WIDTH  # the ceiling of the patches; 40 directions do not fit
    assert set(lanes.loc[lanes["frame"] != "whole", "k"]) == {1, 2, 4}
    for name, rows in parts.items():
        assert not rows.duplicated(["lane", "prompt_id"]).any()
        assert (rows.groupby(["lane", "condition"]).size() == (3 if name == "fitted" else 4)).all()
        assert set(rows["split"]) == {"fit" if name == "fitted" else "heldout"}
        assert set(rows["model"]) == {"pair.base" if name == "mode_toggle" else "pair.tuned"}
    losses = pd.read_parquet(folder / "losses.parquet")
    assert set(losses["lane"]) == set(parts["heldout"]["lane"])
    assert list(losses.columns) == ["lane", "text_id", "cluster", "nats", "n_tokens"]
    assert (losses["nats"] > 0).all()
    assert not list((folder.parent / "staging").rglob("*.parquet"))
    assert len(read_table(folder / "directions.csv")) == 2 * LAYERS * 3


def test_clusters_of_the_asked_prompts_are_balanced(folder):
    rows = pd.read_parquet(folder / "heldout.parquet")
    plain = rows[rows["lane"] == "plain"]
    assert plain.groupby("condition")["cluster"].nunique().tolist() == [4, 4]


def test_the_ceiling_of_a_patch_into_the_last_block_is_near_the_donor(folder):
    """Both models share nothing but their head's shape: the patched stream must matter."""
    rows = pd.read_parquet(folder / "substitution.parquet")
    kl = rows.groupby("lane")["kl_first"].mean()
    assert kl["plain"] < 1e-9
    assert kl["substitution.whole.wide.patch.k32"] > kl["substitution.template.wide.patch.k1"] > 0


def test_equal_runs_give_equal_bytes(folder, inputs, tmp_path):
    assert content(run(inputs, tmp_path)) == content(folder)


def test_without_the_published_protocol_nothing_is_asked_of_fitted_prompts(inputs, tmp_path):
    found = run(inputs, tmp_path, published_protocol=False, random_draws=1)
    assert not (found / "fitted.parquet").exists()
    assert (found / "heldout.parquet").exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, inputs, tmp_path):
    root = tmp_path / "killed"

    def second_has_begun() -> bool:
        first, second = (list(root.glob(f"staging/{one}.parquet")) for one in ("*", "*/*"))
        return bool(first and second)

    kill_between_parts(second_has_begun, "studies.ablation.test_ablation_stage", inputs, root)
    finished = {path: path.stat().st_mtime_ns for path in root.glob("staging/*.parquet")}
    assert finished
    assert not (root / "ablation").exists()
    assert content(run(inputs, root)) == content(folder)


def test_a_finished_experiment_is_not_run_again(folder, inputs, tmp_path, monkeypatch):
    import actshift.studies.ablation.stage as stage

    def stop(*_args: Any, **_options: Any) -> None:
        raise KeyError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "text_losses", stop)
        with pytest.raises(KeyError):
            run(inputs, tmp_path)
    assert len(list(tmp_path.glob("staging/*.parquet"))) == 4
    monkeypatch.setattr(stage, "intervene", stop)
    assert content(run(inputs, tmp_path)) == content(folder)


def test_another_tokenizer_on_the_other_side_is_refused(checkpoints, inputs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoints[0], other)
    text = (other / "tokenizer.json").read_text()
    swapped = text.replace('"bake"', '"@"').replace('"steal"', '"bake"').replace('"@"', '"steal"')
    (other / "tokenizer.json").write_text(swapped)
    with pytest.raises(UserError, match="as different tokens, so neither can be patched"):
        run({**inputs, "base": other}, tmp_path)
    assert not (tmp_path / "ablation").exists()
