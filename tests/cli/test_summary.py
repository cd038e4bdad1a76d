"""The summary of a run: missed gates first, then failures, and what the run cost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from report.runs import config_of, with_checkpoint, with_missed, write_run
from report.synthetic_tables import synthetic_tables

from actshift.commands.summary import WIDTH, end_of_run, summary_lines
from actshift.io.missed import Missed
from actshift.stages.report import make_report

LONG = "It answers 35 % of 40 questions with code, at least 40 % is asked; " * 8
CONFIG = config_of("llama", "qwen") | {"studies": ["rank_audit", "misalignment", "calibration"]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a page: llama is measured in all studies, qwen in the audit."""
    folder = write_run(tmp_path / "results/demo", synthetic_tables(("llama",), n_layers=2))
    with_checkpoint(folder, "llama.base", source="zoo:llama/base", shape=(500, 500))
    with_checkpoint(folder, "llama.tuned", source="zoo:llama/chat", shape=(520, 500))
    for stage in ("rank_audit", "spillover", "steering", "transfer"):
        (folder / "pairs/llama" / stage).mkdir(parents=True)
    (folder / "pairs/qwen/rank_audit").mkdir(parents=True)
    (folder / "calibration/seed-0").mkdir(parents=True)
    make_report(folder, folder / "report.html", config=CONFIG, failures=[], origin={})
    return folder


def miss(run: Path, number: int, detail: str = "One sentence.") -> None:
    for place in range(number):
        subject = f"qwen: adapter {place}"
        missed = Missed(subject, f"gate missed, {place} % of 40 %", detail, f"spillover-{place}")
        with_missed(run, "qwen", missed)


def fail(run: Path, number: int, message: str = "NaN in layer 2") -> None:
    status = run / "status"
    status.mkdir(exist_ok=True)
    for place in range(number):
        record = {"rule": "extract", "job": f"model=p{place}.base", "message": message}
        (status / f"extract--p{place}.json").write_text(json.dumps(record))


def test_a_run_without_trouble(actshift, run: Path) -> None:
    done = actshift("summary", run)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "actshift: run demo: 0 missed gates, 0 failed jobs"
    text = " ".join(done.stdout.split())
    assert "models 2 pairs of models of 0.26 million parameters, trained from scratch" in text
    assert "pairs llama, qwen" in text
    assert "rank_audit 2 of 2; misalignment 1 of 2 (not qwen); calibration 1 of 1 seeds" in text
    assert "time 12 s in jobs: zoo 12" in text
    assert f"page {run}/report.html" in text
    assert "checkpoints 2" in text


def test_missed_gates_come_first_and_are_no_failures(actshift, run: Path) -> None:
    miss(run, 1, detail="qwen: adapter 0: it answers 35 % with code.")
    fail(run, 1)
    lines = actshift("summary", run).stdout.splitlines()
    assert lines[0].endswith("1 missed gate, 1 failed job")
    assert lines[1].split(maxsplit=1) == ["missed", "qwen: adapter 0: gate missed, 0 % of 40 %"]
    assert lines[2].strip() == "it answers 35 % with code."
    assert lines[3].split(maxsplit=1) == ["failed", "extract model=p0.base: NaN in layer 2"]
    assert sum("NaN" in line for line in lines) == 1


def test_the_worst_run_still_fits_a_screen(
    actshift, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[1])
    miss(run, 9, detail=LONG)
    fail(run, 30, message=LONG)
    lines = actshift("summary", "results/demo").stdout.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= WIDTH <= 100
    text = "\n".join(lines)
    assert "9 missed gates, 30 failed jobs" in text
    assert "and 6 more, on the page and in run.json" in text
    assert "and 28 more: actshift doctor --run" in text


def test_a_run_that_stopped_before_its_page(actshift, run: Path) -> None:
    for name in ("run.json", "report.html"):
        (run / name).unlink()
    text = " ".join(actshift("summary", run).stdout.split())
    assert "page none: the report has not been made" in text
    assert "1 pair of models of 0.26 million parameters" in text
    assert "rank_audit 1 of 1; misalignment 1 of 1" in text


def test_only_the_pairs_that_were_asked_for(run: Path) -> None:
    lines = summary_lines(run, config={**CONFIG, "only": "llama"})
    assert "  pairs     llama" in lines
    assert "misalignment 1 of 1" in " ".join(lines)


def test_a_killed_job_is_not_passed_over(run: Path) -> None:
    text = " ".join(" ".join(summary_lines(run, config=CONFIG, failed=True)).split())
    assert f"failed a job that left no message: actshift doctor --run {run}" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"run": "x"}'])
def test_a_damaged_record_is_one_line(actshift, run: Path, content: str) -> None:
    (run / "run.json").write_text(content)
    done = actshift("summary", run)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "run.json" in done.stderr
    assert "-R report" in done.stderr


@pytest.mark.parametrize("place", ["", "none", "results"])
def test_what_is_no_run_is_one_line(actshift, run: Path, tmp_path: Path, place: str) -> None:
    done = actshift("summary", tmp_path / place)
    assert run.is_dir()
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "expected results/<run>" in done.stderr


def test_the_end_of_a_start_that_made_nothing_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = run / "timings/zoo/llama.tsv"
    os.utime(timing, (1000, 1000))
    capsys.readouterr()
    end_of_run(run, config=CONFIG, started=2000.0, failed=False)
    assert capsys.readouterr().out.splitlines() == [
        f"actshift: no job was run; actshift summary {run}"
    ]
    end_of_run(run, config=CONFIG, started=500.0, failed=False)
    assert "s on the clock; 12 s in jobs" in capsys.readouterr().out
    end_of_run(run, config=CONFIG, started=2000.0, failed=True)
    assert "a job that left no message" in " ".join(capsys.readouterr().out.split())


def test_damage_at_the_end_of_a_run_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints/llama.tuned/manifest.json").write_text("{")
    capsys.readouterr()
    end_of_run(run, config=CONFIG, started=0.0, failed=False)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("actshift: no summary: ")
    assert "manifest.json" in line


def test_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, actshift.commands.summary; print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "transformers", "numpy", "pandas", "matplotlib", "zarr", "snakemake"}
    assert set(done.stdout.split()) & heavy == set()


def test_many_files_cost_little(run: Path) -> None:
    folder = run / "activations/llama.base/x"
    folder.mkdir(parents=True)
    for place in range(3000):
        (folder / str(place)).write_bytes(b"x" * 1000)
    os.link(folder / "0", folder / "same")
    start = time.monotonic()
    text = " ".join(summary_lines(run, config=CONFIG))
    assert time.monotonic() - start < 5
    assert "activations 3 MB" in text
