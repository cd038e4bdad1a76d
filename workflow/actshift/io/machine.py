"""The machine behind each job's numbers: processor, BLAS kernels, what torch uses, threads.

Sums differ in their last bits between processors and kernels, and what is trained from scratch
differs by more. Every job leaves `machines/<rule>--<wildcards>.json` beside its timing. No host
name, address, user or path is kept: equal machines leave equal descriptions.
"""

import json
import os
import platform
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actshift.io.atomic import atomic_write_text

#: Folder of the descriptions below `results/<run>`.
MACHINES = "machines"
#: Variables that choose instruction sets or kernels, or forbid some.
SETTINGS = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "MKL_INTERFACE_LAYER", "MKL_THREADING_LAYER",
    "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "OPENBLAS_VERBOSE",
)  # fmt: skip
#: Instruction sets that kernels are chosen by; the rest of a processor's flags change no number.
_SETS = re.compile(
    r"sse4_[12]|avx\w*|fma|f16c|amx_\w+|bf16|i8mm|asimd\w*|neon|s[vm]e\d*|vsx|altivec"
)
_PROCESSOR = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia")


def write_machine(file: Path, *, rule: str, threads: int) -> None:
    """Describe this machine and the numeric libraries that this process has loaded.

    Called at the end of a job: nothing is imported for it that the job did not import.
    """
    described = {"machine": machine(), "libraries": dict(libraries())}
    record = {"rule": rule, "threads": threads, **described}
    atomic_write_text(file, json.dumps(record, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Processor, instruction sets, cores, memory, GPUs, and the variables that choose kernels.

    The keys are processor, architecture, instruction_sets (sorted names), cores (usable by this
    process), memory_gib, system, gpus (names), settings (variables that are set).
    """
    model, sets = _processor()
    return {
        "processor": model,
        "architecture": platform.machine(),
        "instruction_sets": sets,
        "cores": _cores(),
        "memory_gib": _memory(),
        "system": platform.system(),
        "gpus": _gpus(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def libraries() -> Iterator[tuple[str, str]]:
    """Yield the BLAS of numpy, scipy and torch in this process, with the kernels they chose."""
    import threadpoolctl  # light, and only at the end of a job

    with warnings.catch_warnings():
        # It warns of two OpenMP libraries in a process, which is not what is asked here.
        warnings.simplefilter("ignore")
        pools = threadpoolctl.threadpool_info()
    for pool in pools:
        if pool["user_api"] == "blas":
            words = (pool["internal_api"], pool.get("version"), pool.get("architecture"))
            yield _owner(pool["filepath"]), " ".join(str(word) for word in words if word)
    torch = sys.modules.get("torch")
    if torch is not None:
        yield "torch", _torch(torch)


def read_machines(root: Path) -> list[dict[str, Any]]:
    """Return the machines that the jobs of `results/<run>` ran on, most jobs first.

    One mapping a machine: the keys of `machine`, `libraries` (by owner; several where jobs differ)
    and `jobs`, a mapping rule -> {jobs, threads}.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((root / MACHINES).glob("*.json")):
        record = _record(file)
        if record is not None:
            groups.setdefault(json.dumps(record["machine"], sort_keys=True), []).append(record)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [_joined(records) for _, records in ordered]


def _record(file: Path) -> dict[str, Any] | None:
    """A job's description; None where a full disk cut it off."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and "machine" in record else None


def _joined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One machine, with the libraries and the rules of all its jobs."""
    owners = sorted({owner for record in records for owner in record["libraries"]})
    jobs = Counter(record["rule"] for record in records)
    threads = {record["rule"]: record["threads"] for record in records}
    return records[0]["machine"] | {
        "libraries": {
            owner: sorted({r["libraries"][owner] for r in records if owner in r["libraries"]})
            for owner in owners
        },
        "jobs": {rule: {"jobs": jobs[rule], "threads": threads[rule]} for rule in sorted(jobs)},
    }


def _processor() -> tuple[str, list[str]]:
    """Model of the processor and its instruction sets, sorted.

    Virtual machines often say no more than `AMD EPYC`, so the numbers of family, model and
    stepping stand beside the name.
    """
    facts = _first_processor()
    flags = facts.get("flags") or facts.get("Features") or ""
    sets = sorted({flag for flag in flags.split() if _SETS.fullmatch(flag)})
    name = facts.get("model name") or facts.get("Hardware") or platform.processor() or "unknown"
    keys = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU revision")
    numbers = [f"{key.removeprefix('CPU ')} {facts[key]}" for key in keys if key in facts]
    return f"{name} ({', '.join(numbers)})" if numbers else name, sets


def _first_processor() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    facts: dict[str, str] = {}
    for line in _text(_PROCESSOR).split("\n"):
        key, colon, value = line.partition(":")
        if not colon:
            break
        facts[key.strip()] = " ".join(value.split())
    return facts


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    """Memory of the machine, GiB; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> list[str]:
    """NVIDIA GPUs and their driver, as the driver's own files say; empty without one."""
    names = []
    for file in sorted(_GPUS.glob("gpus/*/information")):
        model = re.search(r"^Model:\s*(.+?)\s*$", _text(file), re.MULTILINE)
        names.append(model[1] if model else "unknown")
    driver = re.search(r"Kernel Module[^\d]*([\d.]+)", _text(_GPUS / "version"))
    return [f"{name}, driver {driver[1]}" if driver else name for name in names]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _owner(file: str) -> str:
    """Whose library a file is: `.../numpy.libs/libopenblas.so` is numpy's."""
    parts = [part.removesuffix(".libs") for part in Path(file).parts]
    known = [part for part in parts if part in ("numpy", "scipy", "torch")]
    return known[-1] if known else Path(file).name.split(".")[0]


def _torch(torch: Any) -> str:
    """What torch computes with: kernels of the processor, BLAS, oneDNN, CUDA where it ran."""
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    has_onednn = "with" if torch.backends.mkldnn.is_available() else "without"
    words = [
        f"kernels {torch.backends.cpu.get_cpu_capability()}",
        f"BLAS {blas[1] if blas else 'unknown'}",
        f"{has_onednn} oneDNN",
    ]
    if torch.cuda.is_initialized():
        words.append(f"CUDA {torch.version.cuda} on {torch.cuda.get_device_name()}")
    return ", ".join(words)
