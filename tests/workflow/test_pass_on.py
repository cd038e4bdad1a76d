"""What a job does with a marked input, in a real run of a small Snakefile: pass on, or go on."""

import json
from pathlib import Path

import pytest
from workflow.runner import Clone, jobs_in

from actshift.io.missed import MISSED, Missed, mark_missed, missed_in

ONE = Missed("zoo llama-micro-s0/chat", "gate missed, refused 8 % of 95 %", "All rates.", "zoo")
SNAKEFILE = """
rule all:
    input:
        "results/joint.csv",

rule stage:
    input:
        folder="made/{pair}",
        beside="prompts.jsonl",
    output:
        folder=directory("results/{pair}/stage.v1"),
        rows="results/{pair}/rows.csv",
        table="results/{pair}/deep/table.parquet",
    log:
        "results/logs/stage.{pair}.log",
    params:
        status="results/status",
    script:
        "stage.py"

rule after:
    input:
        folder="results/{pair}/stage.v1",
    output:
        directory("results/{pair}/after"),
    log:
        "results/logs/after.{pair}.log",
    params:
        status="results/status",
    script:
        "after.py"

rule joint:
    input:
        expand("results/{pair}/after", pair=["met", "missed"]),
    output:
        "results/joint.csv",
    log:
        "results/logs/joint.log",
    params:
        status="results/status",
    script:
        "joint.py"
"""
STAGE = """
from pathlib import Path
from actshift.job import job
with job(snakemake):
    print("measuring")
    Path(snakemake.output.folder).mkdir(parents=True)
    (Path(snakemake.output.folder) / "numbers.csv").write_text("a\\n1\\n")
    for name in ("rows", "table"):
        Path(snakemake.output[name]).write_text("a\\n1\\n")
"""
AFTER = """
from pathlib import Path
from actshift.job import job
with job(snakemake):
    Path(snakemake.output[0]).mkdir(parents=True)
    numbers = (Path(snakemake.input.folder) / "numbers.csv").read_text()
    (Path(snakemake.output[0]) / "numbers.csv").write_text(numbers)
"""
JOINT = """
from pathlib import Path
from actshift.job import job
with job(snakemake, joint=True):
    from actshift.io.missed import has_numbers
    rows = [f"{Path(one).parent.name},{has_numbers(Path(one))}" for one in snakemake.input]
    Path(snakemake.output[0]).write_text("\\n".join(["pair,numbers", *rows]) + "\\n")
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A finished run of two pairs, of which one has a marked folder."""
    clone = Clone.make(tmp_path_factory.mktemp("pass_on") / "clone")
    (clone.root / "Snakefile").write_text(SNAKEFILE)
    for name, code in (("stage", STAGE), ("after", AFTER), ("joint", JOINT)):
        (clone.root / f"{name}.py").write_text(code)
    (clone.root / "prompts.jsonl").write_text("")
    (clone.root / "made" / "met").mkdir(parents=True)
    mark_missed(clone.root / "made" / "missed", ONE)
    done = clone.run()
    assert done.returncode == 0, done.stdout[-4000:]
    assert jobs_in(done.stdout) == {"stage": 2, "after": 2, "joint": 1, "all": 1}
    return clone


def test_folders_get_the_marker_and_files_are_empty(clone: Clone) -> None:
    results = clone.root / "results" / "missed"
    # A dot in its name makes no file of a folder.
    for name in ("stage.v1", "after"):
        assert missed_in(results / name) == ONE
        there = {file.name for file in (results / name).iterdir()}
        assert there - {".snakemake_timestamp"} == {MISSED}
    for name in ("rows.csv", "deep/table.parquet"):
        assert (results / name).read_bytes() == b""


def test_the_log_says_why_and_no_job_failed(clone: Clone) -> None:
    logs = clone.root / "results" / "logs"
    wanted = f"{ONE.subject}: not measured: {ONE.reason}; nothing is measured here\n"
    for rule in ("stage", "after"):
        assert (logs / f"{rule}.missed.log").read_text() == wanted
    assert (logs / "stage.met.log").read_text() == "measuring\n"
    assert not list((clone.root / "results").glob("status/*"))


def test_the_other_pair_is_measured_and_the_joint_stage_runs(clone: Clone) -> None:
    results = clone.root / "results"
    assert (results / "met" / "after" / "numbers.csv").read_text() == "a\n1\n"
    assert missed_in(results / "met" / "after") is None
    assert (results / "joint.csv").read_text() == "pair,numbers\nmet,True\nmissed,False\n"


def test_a_finished_run_has_nothing_to_do(clone: Clone) -> None:
    assert clone.planned() == {}


def test_a_gate_that_is_met_later_is_measured(clone: Clone) -> None:
    """And what an earlier failure left in the status folder goes."""
    status = clone.root / "results" / "status"
    status.mkdir()
    failed = {"rule": "stage", "job": "pair=missed", "message": "no space left"}
    (status / "stage--missed.json").write_text(json.dumps(failed))
    marker = clone.root / "made" / "missed" / MISSED
    kept = marker.read_bytes()
    marker.unlink()
    done = clone.run("-R", "stage")
    assert done.returncode == 0, done.stdout[-4000:]
    assert (clone.root / "results" / "joint.csv").read_text().endswith("missed,True\n")
    assert not list(status.iterdir())
    # And the other way round: numbers make way for the marker.
    marker.write_bytes(kept)
    assert clone.run("-R", "stage").returncode == 0
    assert missed_in(clone.root / "results" / "missed" / "stage.v1") == ONE
    assert Path(clone.root / "results" / "missed" / "rows.csv").read_bytes() == b""
