"""A small run on disk, made with the real writers, and a runner of the command line."""

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import save_file
from typer.testing import CliRunner

from actshift.cli import app
from actshift.io.layout import plan_layout
from actshift.io.writer import StoreRows, StoreWriter
from actshift.stages.checkpoint import make_checkpoint

LAYERS, POSITIONS, PROMPTS, WIDTH = 3, 2, 6, 8


class Run(Protocol):
    def __call__(self, *arguments: object) -> Result: ...


@pytest.fixture
def actshift() -> Run:
    """Call the command line in this process."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


def write_store(folder: Path) -> Path:
    """A complete store; its first prompt has no position -2."""
    layout = plan_layout(layers=LAYERS, positions=POSITIONS, prompts=PROMPTS, d_model=WIDTH)
    valid = np.ones((POSITIONS, PROMPTS), dtype=bool)
    valid[0, 0] = False
    rows = StoreRows(
        prompt_ids=[f"p{i}" for i in range(PROMPTS)],
        n_tokens=np.arange(1, PROMPTS + 1),
        valid=valid,
        token_id=np.where(valid, 7, -1),
        is_special=np.zeros_like(valid),
        token_index=np.where(valid, 0, -1),
        batch=np.zeros(PROMPTS, dtype=int),
        batch_row=np.arange(PROMPTS),
    )
    writer = StoreWriter(folder, layout, rows, attrs={"model": "p.base", "note": "[bold]"})
    values = np.ones((LAYERS, POSITIONS, PROMPTS, WIDTH), dtype=np.float32)
    values *= np.arange(1, LAYERS + 1, dtype=np.float32)[:, None, None, None]
    values[:, ~valid] = np.nan
    for window in writer.missing():
        start, stop = layout.span(window)
        block = values[:, :, start:stop]
        writer.write(window, resid_post=block, final_norm=block[-1], model="p.base")
    writer.finish({"key": "k"})
    return folder


def write_model(folder: Path, *, layers: int = LAYERS, dtype: str = "float16") -> Path:
    """A small Hugging Face folder."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": WIDTH,
        "dtype": dtype,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    # Above 4 MiB, so that the manifest holds its size and only the facts hold its sha256.
    save_file({"embed": np.zeros((1100, 1000), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """`results/r` with one checkpoint and one store."""
    folder = tmp_path / "results" / "r"
    make_checkpoint(
        str(write_model(tmp_path / "model")),
        model="p.base",
        out=folder / "checkpoints" / "p.base",
        made=None,
        dtype="float32",
        stamps=tmp_path / "stamps",
    )
    write_store(folder / "activations" / "p.base" / "harmful.raw")
    return folder


@pytest.fixture
def store(run: Path) -> Path:
    return run / "activations" / "p.base" / "harmful.raw"


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub home and no network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hf"
