"""Shared fixtures: tiny random models as ordinary checkpoint folders, prompts, streams.

Heavy imports stay inside the fixtures: the shape checks of `--jaxtyping-packages` must be in place
before the package is imported, and most tests need no torch.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Two jobs share the cores of a test machine; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make (once) the folder of a random model: family, keywords seed and template."""
    made: dict[tuple[Any, ...], Path] = {}

    def make(family: str, **options: Any) -> Path:
        from reference.tiny_models import build_checkpoint

        key = (family, *sorted(options.items()))
        if key not in made:
            made[key] = build_checkpoint(tmp_path_factory.mktemp(family), family, **options)
        return made[key]

    return make


@pytest.fixture
def own_checkpoint(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a tiny checkpoint, to be damaged by one test."""

    def copy(family: str = "llama", **options: Any) -> Path:
        folder = tmp_path / f"own-{family}"
        shutil.copytree(tiny_checkpoint(family, **options), folder)
        return folder

    return copy


@pytest.fixture
def make_prompts(tmp_path: Path) -> Callable[..., Path]:
    """Write a prompt set of n prompts with lengths from 2 to 13 words, not in length order."""

    def make(n: int = 12, name: str = "harmful", shift: int = 0) -> Path:
        from reference.tiny_models import WORDS

        from actshift.prompts.records import Prompt, write_prompts

        rows = []
        for i in range(n):
            k = 2 + (i * 7 + shift) % 12
            text = " ".join(WORDS[(i * 5 + j * 3 + shift) % len(WORDS)] for j in range(k))
            rows.append(
                Prompt(
                    id=f"p{i:03d}",
                    text=text,
                    condition="harmful",
                    category="a",
                    cluster=f"c{i}",
                    split="fit",
                    source="test",
                )
            )
        path = tmp_path / "prompts" / f"{name}.jsonl"
        write_prompts(path, rows)
        return path

    return make


@pytest.fixture
def make_stream(
    tiny_checkpoint: Callable[..., Path], make_prompts: Callable[..., Path], tmp_path: Path
) -> Callable[..., object]:
    """Make a `Stream` of a tiny model; keywords replace its fields."""

    def make(family: str = "llama", **fields: Any) -> object:
        from actshift.engine.extract import Stream

        template = fields.get("template", "raw")
        name = fields.get("prompt_set", "harmful")
        checkpoint = fields.get("checkpoint") or tiny_checkpoint(family)
        default = {
            "model": f"{family}.base",
            "checkpoint": checkpoint,
            "template_from": checkpoint if template == "chat" else None,
            "prompts": fields.get("prompts") or make_prompts(),
            "prompt_set": name,
            "template": template,
            "positions": "last_prompt",
            "out": tmp_path / "run" / "activations" / f"{family}.base" / f"{name}.{template}",
        }
        return Stream(**(default | fields))

    return make
