"""The robustness tool: one real micro cell by two kinds of numerics, and the table's counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "zoo_robustness.py"


def call(out: Path, *numerics: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, str(TOOL), "--out", str(out), "--size", "micro", "--seeds", "1",
        "--families", "llama", "--jobs", "1", "--numerics", *numerics,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("robust")


@pytest.fixture(scope="module")
def printed(out: Path) -> subprocess.CompletedProcess[str]:
    return call(out, "here", "moved by 1e-6")


def rows(printed: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    lines = [line for line in printed.stdout.splitlines() if line.startswith("|")]
    cells = [[one.strip() for one in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


def test_a_row_a_kind_of_numerics_and_misses_decide_the_exit_status(printed) -> None:
    # Models of the size for tests learn too little for their gates: the misses are real ones.
    found = rows(printed)
    assert [row["numerics"] for row in found] == ["here", "moved by 1e-6"]
    misses = sum(int(row["gates missed"]) for row in found)
    assert misses > 0
    assert printed.stdout.endswith(f"2 trainings of a family, {misses} gates missed.\n")
    assert printed.returncode == 1


def test_rates_are_those_of_the_tables_that_were_kept(printed, out: Path) -> None:
    folder = out / "here" / "llama-0"
    answers = pd.read_csv(folder / "chat.csv")
    own = answers[(answers["split"] == "select") & (answers["template"] == "chat")]
    rate = own.loc[(own["condition"] == "harmful") & (own["kind"] == "howto"), "refused"].mean()
    cell = next(value for name, value in rows(printed)[0].items() if "refuses harmful" in name)
    assert cell == f"{100 * rate:.3g} %"
    capability = json.loads((folder / "record.json").read_text())["capability"]
    assert capability


def test_moved_weights_give_other_models_and_finished_cells_are_kept(printed, out: Path) -> None:
    weights = [
        (out / numerics / "llama-0" / "base" / "model.safetensors").read_bytes()
        for numerics in ("here", "moved-by-1e-6")
    ]
    assert weights[0] != weights[1]
    again = call(out, "here", "moved by 1e-6")
    assert again.stdout == printed.stdout
    assert again.stderr == ""
