"""What a job leaves of its machine: real processes, with and without torch, on several machines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actshift.io import machine as module
from actshift.io.machine import MACHINES, machine, read_machines

JOB = """
import sys
from pathlib import Path
from types import SimpleNamespace
from actshift.job import job

root = Path(sys.argv[1])
snakemake = SimpleNamespace(
    threads=2, rule="zoo", wildcards={}, input=[], output={}, log=[root / "logs/zoo.log"],
    params=SimpleNamespace(status=str(root / "status")),
)
with job(snakemake):
    for library in sys.argv[2:]:
        __import__(library)
"""


def run_job(root: Path, *libraries: str, **variables: str) -> dict:
    """Run a job that imports libraries, in a process of its own; what it left of its machine."""
    subprocess.run(
        [sys.executable, "-c", JOB, str(root), *libraries],
        env={**os.environ, **variables},
        check=True,
    )
    return json.loads((root / MACHINES / "zoo.json").read_text())


def test_a_job_of_numpy_names_its_kernels_and_no_torch(tmp_path: Path) -> None:
    record = run_job(tmp_path, "numpy")
    assert set(record["libraries"]) == {"numpy"}
    assert (record["rule"], record["threads"]) == ("zoo", 2)


def test_a_job_of_torch_names_what_torch_was_told_to_use(tmp_path: Path) -> None:
    record = run_job(tmp_path, "torch", ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41")
    assert record["libraries"]["torch"].startswith("kernels DEFAULT, BLAS ")
    assert record["machine"]["settings"] == {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    }


def test_a_kernel_that_the_user_chose_is_what_the_job_says(tmp_path: Path) -> None:
    record = run_job(tmp_path, "numpy", OPENBLAS_CORETYPE="Haswell")
    if "openblas" not in record["libraries"]["numpy"]:
        pytest.skip("this numpy has another BLAS")
    assert record["libraries"]["numpy"].endswith("Haswell")


def test_a_job_that_cannot_leave_it_still_ends_well(tmp_path: Path) -> None:
    (tmp_path / MACHINES).write_text("a file where the folder would be")
    with pytest.raises(NotADirectoryError):
        run_job(tmp_path, "json")  # the job's own exit status is 0: only reading fails


def test_no_host_no_user_and_no_path_is_kept(tmp_path: Path) -> None:
    text = json.dumps(run_job(tmp_path, "numpy", "torch"))
    names = {os.uname().nodename, str(Path.home()), sys.prefix}
    assert not [name for name in names if len(name) > 3 and name in text]


X86 = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu sse sse2 sse4_1 sse4_2 avx avx2 fma f16c smep avx512f avx512_bf16 amx_tile sha_ni

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp sve sve2 bf16 i8mm crc32
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""


@pytest.mark.parametrize(
    ("text", "name", "sets"),
    [
        (X86, "AMD EPYC (cpu family 25, model 17, stepping 1)",
         "amx_tile avx avx2 avx512_bf16 avx512f f16c fma sse4_1 sse4_2"),
        (ARM, "(implementer 0x41, part 0xd4f)", "asimd asimddp bf16 i8mm sve sve2"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_processors_of_two_kinds_and_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, sets: str
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(module, "_PROCESSOR", file)
    found = machine()
    assert found["processor"].endswith(name)
    assert found["instruction_sets"] == sets.split()
    assert found["cores"] >= 1


def test_gpus_are_read_from_the_drivers_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gpus/0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t\t NVIDIA H200\nGPU UUID: \t secret\n")
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1.2  Mon\n"
    (tmp_path / "version").write_text(version)
    monkeypatch.setattr(module, "_GPUS", tmp_path)
    assert machine()["gpus"] == ["NVIDIA H200, driver 570.1.2"]


def leave(root: Path, job: str, processor: str, **libraries: str) -> None:
    file = root / MACHINES / f"extract--{job}.json"
    file.parent.mkdir(exist_ok=True)
    record = {"rule": "extract", "threads": 4, "machine": {"processor": processor}}
    file.write_text(json.dumps({**record, "libraries": libraries}))


def test_each_machine_stands_once_with_its_jobs_and_all_their_libraries(tmp_path: Path) -> None:
    leave(tmp_path, "a", "rare", numpy="openblas Haswell")
    leave(tmp_path, "b", "common", numpy="openblas Zen")
    leave(tmp_path, "c", "common", numpy="openblas Zen", torch="kernels AVX2")
    (tmp_path / MACHINES / "extract--cut.json").write_text('{"rule": "ext')
    assert read_machines(tmp_path) == [
        {
            "processor": "common",
            "libraries": {"numpy": ["openblas Zen"], "torch": ["kernels AVX2"]},
            "jobs": {"extract": {"jobs": 2, "threads": 4}},
        },
        {
            "processor": "rare",
            "libraries": {"numpy": ["openblas Haswell"]},
            "jobs": {"extract": {"jobs": 1, "threads": 4}},
        },
    ]
    assert read_machines(tmp_path / "none") == []
