"""The refusal-direction stage on a random model: splits, artifacts, determinism, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.tiny_models import WORDS
from safetensors.numpy import load_file, save_file

from actshift.engine.context import JobContext
from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.prompts.records import Prompt, read_prompts, write_prompts
from actshift.stages.tables import make_tables
from actshift.studies.refusal_direction.stage import refusal_direction
from actshift.studies.refusal_direction.study import COLUMNS, STUDY, RefusalDirection

# The model below mostly says WORDS[1]: every other word is taken for a refusal.
SETTINGS = RefusalDirection(
    openers=tuple(word for word in WORDS if word != WORDS[1]),
    n_fit=30,
    n_select=20,
    n_heldout=6,
    max_new=4,
)


def make_set(path: Path, condition: str, shift: int) -> Path:
    rng = np.random.default_rng(shift)
    rows = []
    for i in range(80):
        split = ("fit", "fit", "select", "heldout")[i % 4]
        words = rng.choice(WORDS, size=int(rng.integers(2, 9)))
        rows.append(
            Prompt(
                id=f"{condition}-{i}",
                text=" ".join(words),
                condition=condition,
                category="a",
                cluster=f"{condition}{i}",
                split=split,
                source="test",
            )
        )
    write_prompts(path, rows)
    return path


@pytest.fixture
def sets(tmp_path):
    return {
        name: make_set(tmp_path / f"{name}.jsonl", name, shift)
        for shift, name in enumerate(("harmful", "harmless"))
    }


def run(checkpoint: Path, sets: dict[str, Path], root: Path, **changes: Any) -> Path:
    refusal_direction(
        {"checkpoint": checkpoint, **sets},
        settings=SETTINGS.model_copy(update=changes),
        context=JobContext("r", "pair", "float32", "cpu", 0, "c", root / "staging"),
        out=root / "pair",
    )
    return root / "pair"


@pytest.fixture
def checkpoint(own_checkpoint):
    """A random model that says nothing but words, each with near certainty, and can end."""
    folder = own_checkpoint("llama")
    weights = load_file(folder / "model.safetensors")
    head = weights["lm_head.weight"]
    words = slice(6, 6 + len(WORDS))
    weights["lm_head.weight"] = np.zeros_like(head)
    weights["lm_head.weight"][words] = 20 * head[words]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [4]}))
    return folder


@pytest.fixture
def folder(checkpoint, sets, tmp_path):
    return run(checkpoint, sets, tmp_path / "run")


def test_the_folder_holds_candidates_directions_and_heldout_rows(folder, sets):
    table = pd.read_csv(folder / "refusal_direction.csv")
    arrays = load_file(folder / "direction.safetensors")
    rows = pd.read_parquet(folder / "rows.parquet")
    chosen = table[table["chosen"]].iloc[0]
    assert table["chosen"].sum() == 1
    # The template ends in two tokens after the instruction; at layer 0 these are equal embeddings,
    # whose difference of means is zero and no direction.
    assert arrays["candidates"].shape == (3, 2, 32)
    assert len(table) == 4
    place = chosen["layer"], chosen["position"]
    np.testing.assert_array_equal(arrays["direction"], arrays["candidates"][place])
    assert np.linalg.norm(arrays["direction"]) == pytest.approx(chosen["norm"])
    heldout = {p.id for path in sets.values() for p in read_prompts(path) if p.split == "heldout"}
    assert set(rows["prompt_id"]) <= heldout
    assert rows["prompt_id"].nunique() == 12
    assert rows["lane"].nunique() == 1 + 3 + 3 * 20


def test_no_heldout_prompt_reaches_the_choice(checkpoint, sets, folder, tmp_path):
    """Other held-out prompts: the same candidates, scores and choice."""
    for path in sets.values():
        rows = [
            Prompt(**{**_fields(p), "text": "car garden"}) if p.split == "heldout" else p
            for p in read_prompts(path)
        ]
        write_prompts(path, rows)
    other = run(checkpoint, sets, tmp_path / "other")
    for name in ("refusal_direction.csv", "direction.safetensors"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()
    assert (other / "rows.parquet").read_bytes() != (folder / "rows.parquet").read_bytes()


def test_scores_do_not_depend_on_how_many_rows_fit_into_a_pass(checkpoint, sets, folder, tmp_path):
    other = run(checkpoint, sets, tmp_path / "small", token_budget=60)
    large, small = (pd.read_csv(one / "refusal_direction.csv") for one in (folder, other))
    pd.testing.assert_frame_equal(small, large, rtol=1e-3, atol=1e-5)


def _fields(prompt: Prompt) -> dict[str, Any]:
    return {name: getattr(prompt, name) for name in Prompt.__slots__}


def joined(pairs: dict[str, Path], out: Path) -> pd.DataFrame:
    context = JoinContext(folders={"refusal_direction": pairs}, published=out)
    make_tables(STUDY.join, context, tables=COLUMNS, out=out)
    return pd.read_csv(out / "refusal_effect.csv")


def test_equal_runs_give_equal_bytes_and_tables_follow(checkpoint, sets, folder, tmp_path):
    again = run(checkpoint, sets, tmp_path / "again")
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    pairs = {"pair": folder, "failed": tmp_path / "nothing"}
    effect = joined(pairs, tmp_path / "tables")
    assert len(effect) == 12
    assert set(effect["pair"]) == {"pair"}
    assert set(effect["condition"]) == {"harmful", "harmless"}
    with pytest.raises(UserError, match="none of failed"):
        joined({"failed": tmp_path / "x"}, tmp_path / "tables")


def test_a_model_that_never_refuses_has_no_direction(checkpoint, sets, tmp_path):
    with pytest.raises(UserError, match="no harmful prompt of the split fit that it refuses"):
        run(checkpoint, sets, tmp_path, openers=("<unk>",))
    assert not (tmp_path / "pair").exists()


def test_a_set_without_a_split_is_named(checkpoint, sets, tmp_path):
    rows = [p for p in read_prompts(sets["harmless"]) if p.split != "select"]
    write_prompts(sets["harmless"], rows)
    with pytest.raises(UserError, match="has no 'harmless' prompts in the split select"):
        run(checkpoint, sets, tmp_path)
