import json
import os
from pathlib import Path

import pytest

from actshift.commands.doctor import examine_machine


@pytest.mark.usefixtures("hub_home")
def test_the_machine(actshift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = actshift("doctor")
    assert result.exit_code in (0, 1)
    for word in ("python", "torch", "gpu", "hub token", "disk", "transformers", "offline"):
        assert word in result.stdout
    assert "present" in result.stdout
    assert "hf_secret" not in result.output


def test_a_missing_package_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actshift.commands.doctor.PACKAGES", ("no-such-package",))
    assert not examine_machine()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that snakemake ran in, with an unfinished run `r`."""
    (tmp_path / "results/r").mkdir(parents=True)
    (tmp_path / ".snakemake/log").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fail(root: Path, rule: str, *, message: str, at: int) -> None:
    status = root / "results/r/status"
    status.mkdir(exist_ok=True)
    path = status / f"{rule}.json"
    path.write_text(json.dumps({"rule": rule, "job": "model=p.base", "message": message}))
    os.utime(path, (at, at))


def test_the_first_failure_comes_first(actshift, root: Path) -> None:
    fail(root, "extract", message="later", at=20)
    fail(root, "zoo", message="missed its gate", at=10)
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first == "first cause: zoo model=p.base: missed its gate"
    assert "extract" in second


def test_a_message_cut_off_by_a_full_disk(actshift, root: Path) -> None:
    fail(root, "extract", message="x", at=10)
    (root / "results/r/status/extract.json").write_text('{"rule": "ext')
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    assert "first cause: extract: its message" in result.stdout


LOG = """
[Sat Nov 21]
Error in rule extract:
    jobid: 4
    output: results/r/activations/p.base/harmful.raw
    log: results/r/logs/extract/p.log (check log file(s) for error details)
Error in rule zoo:
    log: results/r/logs/zoo/q.log
"""


def test_a_killed_job_is_found_in_the_logs(actshift, root: Path) -> None:
    (root / ".snakemake/log/2026-01-01.snakemake.log").write_text("results/other/x")
    (root / ".snakemake/log/2025-01-01.snakemake.log").write_text(LOG)
    logs = root / "results/r/logs/extract"
    logs.mkdir(parents=True)
    (logs / "p.log").write_text("step 1\nreading window 3\n\n")
    result = actshift("doctor", "--run", root / "results/r")
    assert result.exit_code == 1
    assert "first cause: rule extract: ended without a message" in result.stdout
    assert "reading window 3" in result.stdout
    (logs / "p.log").unlink()
    assert "without a message or a log" in actshift("doctor", "--run", "results/r").stdout


def test_a_held_lock_and_an_unfinished_run(actshift, root: Path) -> None:
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    assert "run the same command" in result.stdout
    (root / ".snakemake/locks").mkdir()
    (root / ".snakemake/locks/0.input.lock").write_text("")
    assert "snakemake --unlock" in actshift("doctor", "--run", "results/r").stdout


def test_a_finished_run(actshift, root: Path) -> None:
    (root / "results/r/report.html").write_text("")
    (root / ".snakemake/log/2026-01-01.snakemake.log").write_text("results/r/x all well")
    result = actshift("doctor", "--run", "results/r")
    assert (result.exit_code, result.stdout.strip()) == (0, "finished: results/r/report.html")


def test_no_such_run(actshift, root: Path) -> None:
    result = actshift("doctor", "--run", root / "results/none")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
