"""What the file system refuses: one line from any stage, whatever library met it."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from reference.file_systems import mounted, read_only

from actshift.engine.extract import ExtractSettings, extract
from actshift.engine.parts import is_whole, write_part
from actshift.errors import StoreError, refusal_of
from actshift.io.store import ActivationStore

JOB = """
import sys
from pathlib import Path
from types import SimpleNamespace
from actshift.job import job
place, log, status = map(Path, sys.argv[1:4])
snakemake = SimpleNamespace(
    threads=1, rule="made", wildcards={"model": "a"}, input=[], output={}, log=[str(log)],
    params=SimpleNamespace(status=str(status)),
)
with job(snakemake):
"""
WRITES = "from actshift.io.atomic import atomic_write_bytes as write; "
STAGES = {
    "one file": WRITES + "write(place / 'a' / 'b', bytes(200_000))",
    "a folder": "from actshift.io.atomic import publishing\n"
    "    with publishing(place / 'made') as folder:\n"
    "        folder.mkdir(); (folder / 'x').write_bytes(bytes(200_000))",
    "weights": "import numpy; from safetensors.numpy import save_file; "
    "save_file({'x': numpy.zeros(200_000)}, place / 'x.safetensors')",
    "rows": "import pyarrow as pa, pyarrow.parquet as pq, random; "
    "pq.write_table(pa.table({'x': [random.random() for _ in range(99_999)]}), place / 'x')",
    "a lock": "from actshift.io.atomic import file_lock\n"
    "    with file_lock(place / 'lock'): " + WRITES + "write(place / 'b', bytes(200_000))",
}


def run_job(stage: str, place: Path, log: Path, status: Path) -> tuple[list[str], str]:
    """Run a stage as a job in a process of its own; the lines on stderr, and the log's text."""
    command = [sys.executable, "-c", f"{JOB}    {stage}\n", str(place), str(log), str(status)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines(), log.read_text() if log.is_file() else ""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ro", "Read-only file system; take a folder that can be written"),
        ("size=64k", "No space left on device; free space there and run the same command again"),
    ],
)
def test_a_stage_that_cannot_write_is_one_line(
    tmp_path: Path, stage: str, options: str, reason: str
) -> None:
    with mounted(tmp_path / "disk", options) as disk:
        told, log = run_job(STAGES[stage], disk, tmp_path / "log", tmp_path / "status")
    (line,) = told
    assert line.startswith("actshift made model=a: ")
    assert reason in line
    assert str(tmp_path) in line
    assert "Traceback" not in log
    assert reason in log


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        told, _ = run_job("pass", tmp_path, disk / "logs" / "log", tmp_path / "status")
    (line,) = told
    assert f"{disk / 'logs'}: Read-only file system" in line


def test_a_report_that_cannot_be_written_after_a_failure_is_one_line(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    config = yaml.safe_load((root / "tests/workflow/micro.yaml").read_text())
    with mounted(tmp_path / "results", "ro"):
        done = subprocess.run(
            [sys.executable, "-m", "actshift.partial", str(root)],
            input=json.dumps(config),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("actshift: no report: results")
    assert "Read-only file system" in line


def test_a_full_disk_under_log_status_and_stage_is_one_line(tmp_path: Path) -> None:
    stage = STAGES["one file"].replace("200_000", "10**6") + "; print('x' * 9999)"
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk / "ballast").write_bytes(bytes(60_000))
        told, _ = run_job(stage, disk, disk / "log", disk / "status")
    (line,) = told
    assert "No space left on device" in line


def test_too_many_open_files_is_one_line(tmp_path: Path) -> None:
    stage = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); "
        "kept = [open(place / 'x', 'w') for _ in range(20)]"
    )
    (line,), log = run_job(stage, tmp_path, tmp_path / "log", tmp_path / "status")
    assert "Too many open files; raise the limit on open files (ulimit -n)" in line
    assert "Traceback" not in log


@pytest.mark.parametrize("stage", ["{}['x']", "open(place / 'none')", "raise ValueError('odd')"])
def test_an_error_of_the_code_keeps_its_traceback(tmp_path: Path, stage: str) -> None:
    (line,), log = run_job(stage, tmp_path, tmp_path / "log", tmp_path / "status")
    assert "traceback in" in line
    assert "Traceback" in log


def test_what_is_no_refusal() -> None:
    assert refusal_of(FileNotFoundError(2, "No such file")) is None
    assert refusal_of(ValueError("os error 28")) is None


def bug_in_a_handler() -> None:
    try:
        raise PermissionError(13, "Permission denied", "f")
    except PermissionError:
        {}["not there"]


def test_a_bug_while_a_refusal_is_handled_is_a_bug() -> None:
    with pytest.raises(KeyError) as caught:
        bug_in_a_handler()
    assert refusal_of(caught.value) is None


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_store_that_cannot_be_opened_now_is_not_called_damaged(make_stream, tmp_path) -> None:
    stream = make_stream()
    extract(
        stream,
        cache=tmp_path / "cache",
        settings=ExtractSettings(token_budget=24, device="cpu"),
        code="c",
    )
    store = ActivationStore.open(stream.out)
    whole = store.read(0)
    with no_more_files(), pytest.raises(StoreError) as caught:
        store.read(1)
    assert "Too many open files" in str(caught.value)
    assert "extract this stream again" not in str(caught.value)
    assert (store.read(0) == whole).all()


def test_rows_that_cannot_be_opened_now_are_not_made_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_part(pa.table({"x": [1, 2]}), file)
    assert is_whole(file)
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        is_whole(file)
    file.write_bytes(file.read_bytes()[:-9])
    assert not is_whole(file)


def test_a_finished_store_is_read_from_a_read_only_folder(make_stream, tmp_path) -> None:
    stream = make_stream()
    settings = ExtractSettings(token_budget=24, device="cpu")
    extract(stream, cache=tmp_path / "cache", settings=settings, code="c")
    with read_only(stream.out):
        assert ActivationStore.open(stream.out).read(0).shape[1] == 32
