"""A model folder of the user's: what appears, changes or goes there after a run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow.runner import Clone, micro_config

from actshift.config.schema import parse_config
from actshift.io.manifest import read_manifest
from actshift.plan.files import files_seen
from actshift.plan.plan import Plan

CHECKPOINT = "results/own/checkpoints/own.base"


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A model that has no chat template yet."""
    shutil.copytree(tiny_checkpoint("llama", template=None), tmp_path / "model")
    (tmp_path / "model/manifest.json").unlink()
    return tmp_path / "model"


def config(base: Path, tuned: str) -> dict[str, object]:
    pair = {"name": "own", "base": str(base), "tuned": tuned}
    return micro_config() | {"run": "own", "pairs": [pair]}


def test_a_template_that_appears_changes_or_goes_makes_the_checkpoint_again(
    folder: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    # Of base: a tuned model without a template is refused before the run.
    clone = Clone.make(tmp_path / "clone")
    tuned = tiny_checkpoint("llama")
    name = clone.write_config("own.yaml", config(folder, str(tuned)))
    own = [CHECKPOINT, "--configfile", name]
    template = folder / "chat_template.jinja"

    def made() -> object:
        done = clone.run(*own)
        assert done.returncode == 0, done.stdout[-4000:]
        assert clone.planned(*own) == {}
        return read_manifest(clone.root / CHECKPOINT)["facts"]["template_hash"]

    hashes = [made()]
    for text in ("one", "two"):
        template.write_text(text)
        # As `cp -p` or a restored backup leaves it: older than the checkpoint.
        os.utime(template, (0, 0))
        hashes.append(made())
    template.unlink()
    hashes.append(made())
    assert hashes[0] is hashes[3] is None
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    "name",
    ["chat_template.jinja", "generation_config.json", "tokenizer.model", "merges.txt"],
)
@pytest.mark.parametrize("start", ["", "lora:"])
def test_every_small_file_is_seen(folder: Path, name: str, start: str) -> None:
    plan = Plan(parse_config(config(folder, f"{start}{folder}"), origin="test"))
    (folder / name).unlink(missing_ok=True)
    seen = [files_seen(plan, "own.tuned")]
    for text in ("one", "two"):
        (folder / name).write_text(text)
        os.utime(folder / name, (0, 0))
        seen.append(files_seen(plan, "own.tuned"))
    assert len(set(seen)) == 3
    (folder / name).unlink()
    assert files_seen(plan, "own.tuned") == seen[0]


def test_weights_count_by_name_and_size_and_other_models_not_at_all(folder: Path) -> None:
    plan = Plan(parse_config(config(folder, str(folder)), origin="test"))
    before = files_seen(plan, "own.base")
    (folder / "notes.txt").write_text("mine")
    assert files_seen(plan, "own.base") == before
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"w")
    assert files_seen(plan, "own.base") != before
    zoo = Plan(parse_config(micro_config(), origin="test"))
    assert {files_seen(zoo, name) for name in zoo.models} == {""}
