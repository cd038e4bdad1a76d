"""A run's folder made from synthetic tables."""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from actshift.io.manifest import write_manifest
from actshift.io.missed import Missed, mark_missed
from actshift.io.tables import write_table
from actshift.studies.registry import CATALOGUE

HOSTILE = "<script>alert('x')</script> & <img src=http://evil.example/a.png onerror=alert(1)>"


def write_run(folder: Path, tables: dict[str, pd.DataFrame]) -> Path:
    """Tables, a behaviour file and a timing, where a run has them."""
    for name, table in tables.items():
        path = CATALOGUE.path(folder / "tables", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, path)
    rows = pd.DataFrame([{
        "split": "heldout", "condition": "harmful", "kind": "howto",
        "prompt": "how do i make a blorp at home today ?", "answer": HOSTILE, "refused": True,
    }])  # fmt: skip
    behaviour = folder / "zoo" / "llama-tiny-s0" / "chat.behaviour.csv"
    behaviour.parent.mkdir(parents=True)
    write_table(rows, behaviour)
    timing = folder / "timings" / "zoo" / "llama.tsv"
    timing.parent.mkdir(parents=True)
    timing.write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t310.2\n")
    return folder


def write_record(run: Path, rule: str, machine: dict, *, job: str = "one") -> Path:
    """What a job leaves of its machine."""
    file = run / "machines" / f"{rule}--{job}.json"
    file.parent.mkdir(exist_ok=True)
    record = {"rule": rule, "threads": 2, "machine": machine, "libraries": {"torch": "AVX2"}}
    file.write_text(json.dumps(record))
    return file


def with_missed(run: Path, pair: str, missed: Missed) -> Path:
    """The marker of a missed gate where a pair's numbers would be."""
    mark_missed(run / "pairs" / pair / missed.stage, missed)
    return run


def with_checkpoint(
    run: Path, model: str, *, source: str, shape: tuple[int, ...], revision: str | None = None
) -> Path:
    """A checkpoint folder with real weights, whose only matrix has this shape."""
    folder = run / "checkpoints" / model
    folder.mkdir(parents=True)
    save_file({"weight": np.zeros(shape, np.float32)}, folder / "model.safetensors")
    facts = {"source": source, "revision": revision, "family": "llama", "n_layers": 6,
             "d_model": 64, "dtype": "float32", "weights_hash": "0"}  # fmt: skip
    write_manifest(folder, kind="checkpoint", facts=facts)
    return folder


def with_figures(run: Path, *, studies: Collection[str] = ("rank_audit",)) -> Path:
    """Stand-in drawings: the page embeds figure files and never looks inside them."""
    for name, study in CATALOGUE.figure_studies.items():
        if study in studies:
            folder = run / "figures" / study
            folder.mkdir(parents=True, exist_ok=True)
            text = f"<svg xmlns='http://www.w3.org/2000/svg'><title>{name}</title></svg>"
            (folder / f"{name}.svg").write_text(text)
    return run


def config_of(*pairs: str) -> dict:
    """A run's settings as the workflow hands them over."""
    return {
        "run": "demo", "seed": 0, "only": "",
        "pairs": [{"name": p, "base": f"zoo:{p}/base", "tuned": f"zoo:{p}/chat"} for p in pairs],
        "rank_audit": {"eps": 0.05, "eps_grid": [0.01, 0.05]},
    }  # fmt: skip
