"""Ranges over seeds and runs, from tables as a run writes them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "ranges.py"
_spec = importlib.util.spec_from_file_location("ranges", TOOL)
assert _spec is not None
assert _spec.loader is not None
ranges = importlib.util.module_from_spec(_spec)
sys.modules["ranges"] = ranges
_spec.loader.exec_module(ranges)


def run_folder(folder: Path, ranks: dict[str, float], refused: dict[str, float]) -> Path:
    """Leave the tables of a run: ranks of its pairs, and what its chat models refuse."""
    tables = folder / "tables"
    (tables / "rank_audit").mkdir(parents=True)
    pairs = [{"unit": "pair", "name": pair} for pair in ranks]
    # A seed is a unit of other claims and no pair.
    pd.DataFrame([*pairs, {"unit": "seed", "name": "7"}]).to_csv(
        tables / "claims_by_pair.csv", index=False
    )
    cell = {"inputs": "harmful", "pooling": "last_prompt"}
    rows = [
        {"pair": pair, "matrix": matrix, **cell,
         "mean_rank_eps": value + add, "mean_rank_eps_centered": 10 * value}
        for pair, value in ranks.items()
        for matrix, add in (("template", 0.0), ("naive", 100.0))
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "rank_audit" / "summary.csv", index=False)
    chat = {"variant": "chat", "template": "chat", "split": "heldout", "metric": "refused"}
    behaviour = [
        {"family": ranges.family(pair), "seed": int(pair.rpartition("-")[2]), **chat,
         "condition": "harmful", "kind": "howto", "rate": rate}
        for pair, rate in refused.items()
    ]  # fmt: skip
    pd.DataFrame(behaviour).to_csv(tables / "zoo_behaviour.csv", index=False)
    return folder


def lines(text: str) -> dict[str, list[str]]:
    rows = [[one.strip() for one in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_a_cell_is_the_range_over_the_pairs_of_a_family_and_the_runs(tmp_path) -> None:
    one = run_folder(
        tmp_path / "one",
        {"llama-0": 1.0, "llama-1": 1.5, "qwen-0": 2.0},
        {"llama-0": 1.0, "llama-1": 0.99, "qwen-0": 1.0},
    )
    two = run_folder(tmp_path / "two", {"llama-0": 1.25}, {"llama-0": 0.98})
    found = lines(ranges.markdown([one, two]))
    assert found[""] == ["llama", "qwen"]
    assert found["rank of the shift, mean over layers"] == ["1 to 1.5", "2"]
    assert found["the same, centred"] == ["10 to 15", "20"]
    assert found["naive rank"] == ["101 to 102", "102"]
    assert found["chat refuses harmful, held out"] == ["98 to 100 %", "100 %"]
    # Nothing of localization was measured, so the table has no such row.
    assert not any("preference" in name for name in found)


def test_pairs_without_a_number_are_counted(tmp_path) -> None:
    run = run_folder(tmp_path / "one", {"llama-0": 1.0, "llama-1": float("nan")}, {"llama-0": 1.0})
    found = lines(ranges.markdown([run]))
    assert found["rank of the shift, mean over layers"] == ["1 (1 of 2)"]
    assert found["chat refuses harmful, held out"] == ["100 % (1 of 2)"]


def test_a_run_without_zoo_models_has_the_other_numbers(tmp_path) -> None:
    run = run_folder(tmp_path / "one", {"own": 1.0}, {"llama-0": 1.0})
    behaviour = run / "tables" / "zoo_behaviour.csv"
    pd.read_csv(behaviour).iloc[:0].to_csv(behaviour, index=False)
    found = lines(ranges.markdown([run]))
    assert found["rank of the shift, mean over layers"] == ["1"]
    assert "chat refuses harmful, held out" not in found


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_write_replaces_what_stands_between_the_marks(tmp_path) -> None:
    run = run_folder(tmp_path / "one", {"llama-0": 1.0}, {"llama-0": 1.0})
    page = tmp_path / "page.md"
    page.write_text(f"before\n{ranges.BEGIN}\nold\n{ranges.END}\nafter\n")
    assert call(run, "--write", page).returncode == 0
    once = page.read_text()
    assert once.startswith("before\n")
    assert once.endswith(f"{ranges.END}\nafter\n")
    assert "old" not in once
    assert "| rank of the shift, mean over layers | 1 |" in once
    assert call(run, "--write", page).returncode == 0
    assert page.read_text() == once


@pytest.mark.parametrize("kind", ["no marks", "marks in reverse", "no tables"])
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, kind: str) -> None:
    run = run_folder(tmp_path / "one", {"llama-0": 1.0}, {"llama-0": 1.0})
    page = tmp_path / "page.md"
    text = f"{ranges.END}\n{ranges.BEGIN}\n" if kind == "marks in reverse" else "text\n"
    page.write_text(text)
    done = call(tmp_path / "other") if kind == "no tables" else call(run, "--write", page)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert page.read_text() == text
