"""Held-out answers of a model and its references: same prompts, one template, one keyword list."""

from pathlib import Path

import pandas as pd
import pytest
from reference.tiny_models import WORDS, build_checkpoint, seal_checkpoint

from actshift.engine.context import JobContext
from actshift.errors import UserError
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.spectral_gap.behaviour import reference_behaviour
from actshift.studies.spectral_gap.study import ReferenceAnswers

SETTINGS = ReferenceAnswers(openers=("how",), n_heldout=5, max_new=6, token_budget=32768)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for shift, name in enumerate(("harmful", "harmless")):
        rows = [
            Prompt(
                id=f"{name}-{i}",
                text=" ".join(WORDS[(i * 3 + j + shift) % len(WORDS)] for j in range(3 + i % 4)),
                condition=name,
                category="a",
                cluster=f"{name}{i}",
                split="heldout" if i % 2 else "fit",
                source="test",
            )
            for i in range(16)
        ]
        found[name] = tmp_path / f"{name}.jsonl"
        write_prompts(found[name], rows)
    return found


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    """A tuned model, and a reference with other weights whose tokenizer has no template."""
    folders = {}
    for role, options in (("tuned", {}), ("other", {"seed": 1, "template": None})):
        folder = build_checkpoint(tmp_path / role, "llama", **options)
        file = folder / "generation_config.json"
        file.write_text(file.read_text().replace("{", '{"eos_token_id": 1,', 1))
        folders[role] = seal_checkpoint(folder)
    return folders


def run(checkpoints: dict[str, Path], sets: dict[str, Path], out: Path, *, seed: int = 0) -> Path:
    context = JobContext("r", "own", "float32", "cpu", seed, "c", out.parent / "staging")
    inputs = {"checkpoints": list(checkpoints.values()), **sets}
    reference_behaviour(inputs, settings=SETTINGS, context=context, out=out)
    return out


def rows(out: Path) -> dict[str, pd.DataFrame]:
    return {file.stem: pd.read_parquet(file) for file in sorted(out.iterdir())}


def test_every_model_answers_the_same_heldout_prompts(checkpoints, sets, tmp_path) -> None:
    found = rows(run(checkpoints, sets, tmp_path / "out"))
    assert set(found) == {"tuned", "other"}
    for role, table in found.items():
        assert set(table["model"]) == {f"own.{role}"}
        assert set(table["split"]) == {"heldout"}
        assert set(table["lane"]) == {"plain"}
        assert table["condition"].value_counts().to_dict() == {"harmful": 5, "harmless": 5}
    assert set(found["tuned"]["prompt_id"]) == set(found["other"]["prompt_id"])
    # Other weights, other answers; and a reference without template gets the tuned model's.
    assert found["tuned"]["text"].tolist() != found["other"]["text"].tolist()


def test_a_model_beside_itself_answers_alike(checkpoints, sets, tmp_path) -> None:
    again = tmp_path / "again"
    again.symlink_to(checkpoints["tuned"])
    both = {"tuned": checkpoints["tuned"], "again": again}
    found = rows(run(both, sets, tmp_path / "out"))
    columns = ["prompt_id", "text", "refused", "refusal_log_odds"]
    pd.testing.assert_frame_equal(found["tuned"][columns], found["again"][columns])


def test_equal_runs_give_equal_bytes(checkpoints, sets, tmp_path) -> None:
    one, two = (run(checkpoints, sets, tmp_path / name) for name in ("one", "two"))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_the_seed_draws_the_prompts(checkpoints, sets, tmp_path) -> None:
    ids = [
        set(rows(run(checkpoints, sets, tmp_path / str(s), seed=s))["tuned"]["prompt_id"])
        for s in (0, 1)
    ]
    assert ids[0] != ids[1]


def test_a_condition_without_heldout_prompts_is_named(checkpoints, sets, tmp_path) -> None:
    swapped = {"harmful": sets["harmless"], "harmless": sets["harmless"]}
    with pytest.raises(UserError, match=r"harmless\.jsonl has no held-out 'harmful' prompts"):
        run(checkpoints, swapped, tmp_path / "out")
    assert not (tmp_path / "out").exists()
