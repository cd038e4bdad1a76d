"""`actshift doctor`: is this machine fit for a run."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actshift import __version__
from actshift.device import device_is_cuda
from actshift.models.hub import has_token, offline
from actshift.models.on_disk import hub_cache
from actshift.paths import RESULTS

PACKAGES = ("snakemake", "transformers", "huggingface-hub", "zarr", "xarray", "numpy", "scipy")
PYTHONS = ((3, 11), (3, 13))
#: Below this a demo may not fit; the paper's models need far more.
FEW_BYTES = 5 * 10**9

State = Literal["ok", "note", "bad"]
_STYLE = {"ok": "green", "note": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination; only `bad` makes the command fail."""

    what: str
    state: State
    text: str


def examine_machine() -> bool:
    """Print what is installed and reachable.

    Returns:
        True when nothing stands in the way of a run.
    """
    findings = [*_python(), *_torch(), *_hub(), *_disks(), *_packages()]
    table = Table("", "", "finding", title="actshift doctor", title_justify="left")
    for finding in findings:
        style = _STYLE[finding.state]
        table.add_row(finding.what, f"[{style}]{finding.state}[/]", Text(finding.text))
    Console().print(table)
    return all(finding.state != "bad" for finding in findings)


def _python() -> Iterator[Finding]:
    low, high = PYTHONS
    fits = low <= sys.version_info[:2] <= high
    text = f"{platform.python_version()}, needed {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    yield Finding("python", "ok" if fits else "bad", text)
    yield Finding("actshift", "ok", __version__)


def _torch() -> Iterator[Finding]:
    """Torch and the GPU it sees, against the driver that is loaded."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "bad", f"cannot be imported ({error}): see docs/how-to/install.md")
        return
    build = torch.version.cuda
    kind = f"CUDA {build} build" if build else "CPU build"
    yield Finding("torch", "ok", f"{torch.__version__}, {kind}, {torch.get_num_threads()} threads")
    driver = device_is_cuda("auto")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
            yield Finding(f"gpu {index}", "ok", text)
    elif driver:
        text = "a driver is loaded but this torch cannot use it: install a CUDA build of torch"
        yield Finding("gpu", "bad", f"{text}, or set device: cpu")
    else:
        yield Finding("gpu", "note", "none: the zoo runs on the CPU, real models need a GPU")


def _hub() -> Iterator[Finding]:
    if has_token():
        yield Finding("hub token", "ok", "present")
    else:
        yield Finding("hub token", "note", "none: set HF_TOKEN for gated models")
    yield Finding("hub mode", "note" if offline() else "ok", "offline" if offline() else "online")
    yield Finding("hub cache", "ok", str(hub_cache()))


def _disks() -> Iterator[Finding]:
    for what, folder in (("disk: results", RESULTS), ("disk: hub cache", hub_cache())):
        there = _existing(folder)
        free = shutil.disk_usage(there).free
        text = f"{free / 10**9:.1f} GB free below {there}"
        if not os.access(there, os.W_OK):
            yield Finding(what, "bad", f"{there} is not writable")
        else:
            yield Finding(what, "ok" if free >= FEW_BYTES else "note", text)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "bad", "not installed: see docs/how-to/install.md")
