"""`actshift doctor`: is this machine, or a config, fit for a run; or why did a run stop?"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from actshift import __version__
from actshift.config.schema import parse_config
from actshift.errors import UserError, one_line
from actshift.models.findings import Finding, Level, error
from actshift.models.hub import has_token, offline
from actshift.models.language_model import language_type
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import hub_cache, place_of
from actshift.models.sources import HubSource, shape_in
from actshift.paths import RESULTS, RunPaths
from actshift.plan.checks import key_of, plan_errors
from actshift.plan.files import PlanFinding, file_findings
from actshift.plan.misalignment import adapter_file_errors
from actshift.plan.plan import Model, Plan
from actshift.report.run_record import read_failures
from actshift.vocab import counted, device_is_cuda

PACKAGES = ("snakemake", "transformers", "huggingface-hub", "zarr", "xarray", "numpy", "scipy")
PYTHONS = ((3, 11), (3, 13))
#: Below this a demo may not fit; the paper's models need far more.
FEW_BYTES = 5 * 10**9

State = Literal["ok", "note", "bad"]
_STYLE = {"ok": "green", "note": "yellow", "bad": "bold red"}


#: What was examined, how it stands, and why; only `bad` makes the command fail.
MachineFinding = tuple[str, State, str]


def examine_machine() -> bool:
    """Print what is installed and reachable; True when nothing stands in the way of a run."""
    findings = [*_python(), *_torch(), *_hub(), *_disks(), *_packages()]
    table = Table("", "", "finding", title="actshift doctor", title_justify="left")
    for what, state, text in findings:
        table.add_row(what, f"[{_STYLE[state]}]{state}[/]", Text(text))
    Console().print(table)
    return all(state != "bad" for _, state, _ in findings)


def _python() -> Iterator[MachineFinding]:
    low, high = PYTHONS
    fits = low <= sys.version_info[:2] <= high
    text = f"{platform.python_version()}, needed {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    yield ("python", "ok" if fits else "bad", text)
    yield ("actshift", "ok", __version__)


def _torch() -> Iterator[MachineFinding]:
    """Torch and the GPU it sees, against the driver that is loaded."""
    try:
        import torch
    except ImportError as error:
        yield ("torch", "bad", f"cannot be imported ({error}): see docs/how-to/install.md")
        return
    build = torch.version.cuda
    kind = f"CUDA {build} build" if build else "CPU build"
    yield ("torch", "ok", f"{torch.__version__}, {kind}, {torch.get_num_threads()} threads")
    driver = device_is_cuda("auto")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
            yield (f"gpu {index}", "ok", text)
    elif driver:
        text = "a driver is loaded but this torch cannot use it: install a CUDA build of torch"
        yield ("gpu", "bad", f"{text}, or set device: cpu")
    else:
        yield ("gpu", "note", "none: the zoo runs on the CPU, real models need a GPU")


def _hub() -> Iterator[MachineFinding]:
    if has_token():
        yield ("hub token", "ok", "present")
    else:
        yield ("hub token", "note", "none: set HF_TOKEN for gated models")
    yield ("hub mode", "note" if offline() else "ok", "offline" if offline() else "online")
    yield ("hub cache", "ok", str(hub_cache()))


def _disks() -> Iterator[MachineFinding]:
    for what, folder in (("disk: results", RESULTS), ("disk: hub cache", hub_cache())):
        there = _existing(folder)
        free = shutil.disk_usage(there).free
        text = f"{free / 10**9:.1f} GB free below {there}"
        if not os.access(there, os.W_OK):
            yield (what, "bad", f"{there} is not writable")
        else:
            yield (what, "ok" if free >= FEW_BYTES else "note", text)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _packages() -> Iterator[MachineFinding]:
    for name in PACKAGES:
        try:
            yield (name, "ok", version(name))
        except PackageNotFoundError:
            yield (name, "bad", "not installed: see docs/how-to/install.md")


def examine_config(path: Path) -> bool:
    """Print a line a finding, grouped by pair: `ok`, `warning` or `error`; True without errors.

    Paths in the config are relative to the current folder, as for snakemake. A file that is missing
    or no valid config is a UserError.
    """
    plan = Plan(parse_config(_load(path), origin=str(path)))
    findings = [*_models(plan), *file_findings(plan)]
    lines = {finding.line for finding in findings}
    # Some faults are seen by the quick checks and by those of the files.
    quick = (line for line in [*plan_errors(plan), *adapter_file_errors(plan)] if line not in lines)
    findings += [_quick(plan, line) for line in quick]
    groups = {"": "config"} | {pair.name: f"pair {pair.name}" for pair in plan.config.chosen_pairs}
    for pair, title in groups.items():
        of_pair = [finding for finding in findings if finding.pair == pair]
        if not of_pair:
            continue
        typer.echo(title)
        for finding in of_pair:
            typer.echo(f"  {finding.finding.level:<8} {finding.line}")
    levels: list[Level] = [finding.finding.level for finding in findings]
    counts = (counted(levels.count(level), level) for level in ("error", "warning"))
    typer.echo(f"{path}: {', '.join(counts)}")
    return "error" not in levels


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a config such as config.yaml")
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as fault:
        raise UserError(f"{path}: not valid YAML: {one_line(fault)}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping such as config.yaml")
    return raw


def _quick(plan: Plan, line: str) -> PlanFinding:
    """A line of the quick checks, which begins with its config key."""
    for pair in plan.config.chosen_pairs:
        if line.startswith((f"pairs.{pair.name}.", f"pairs.{pair.name}:")):
            return PlanFinding(pair.name, "", error(line))
    return PlanFinding("", "", error(line))


def _models(plan: Plan) -> Iterator[PlanFinding]:
    """Say of each model what it is, so that a model without a finding is seen to be looked at."""
    for model in plan.models.values():
        text = _known(model)
        if text is not None:
            yield PlanFinding(
                model.pair.name, key_of(model), Finding("ok", f"{model.source}: {text}")
            )


def _known(model: Model) -> str | None:
    """What a model's files are; None where they cannot be read, which is a finding of its own."""
    place = place_of(model.source)
    if place is None:
        hub = isinstance(model.source, HubSource)
        return "not in the hub cache, so not looked at" if hub else "made by the run"
    files = ModelFiles(place)
    try:
        layers, width = shape_in(files.config, name=str(model.source))
        tokens = len(files.vocabulary or {})
        kind = language_type(files.config) or files.config.get("model_type")
        return f"{kind}, {layers} blocks, {width} wide, {tokens} tokens"
    except UserError:
        return None


_RULE = re.compile(r"^Error in rule (\S+):", re.MULTILINE)
_LOG = re.compile(r"^\s+log: (\S+)", re.MULTILINE)


def examine_run(folder: Path) -> bool:
    """Print the first cause of a run's failure, then how many other jobs failed.

    A job that ended with a message left it in `status/`. A job that was killed could not, so then
    Snakemake's own log and the last line of that job's log are read. Returns True when the run is
    finished and no job of it failed.

    Raises:
        UserError: it is no run's folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected results/<run>")
    paths = RunPaths(folder.name)
    root = folder.resolve().parents[1]
    failures = read_failures(folder / paths.status.name, by_time=True)
    reasons = [f"{' '.join(filter(None, (f['rule'], f['job'])))}: {f['message']}" for f in failures]
    cause = reasons[0] if reasons else _killed(root, paths)
    if cause is not None:
        typer.echo(f"first cause: {cause}")
        for line in reasons[1:]:
            typer.echo(f"also failed: {line}")
        return False
    report = folder / paths.report.name
    if any((root / ".snakemake/locks").glob("*.lock")):
        typer.echo(
            "not finished: Snakemake's lock is held, so a run is going on or was killed; "
            "if it was killed: snakemake --unlock, then the same command"
        )
        return False
    if not report.is_file():
        typer.echo(f"not finished: no job failed, but there is no {report}: run the same command")
        return False
    typer.echo(f"finished: {report}")
    return True


def _killed(root: Path, paths: RunPaths) -> str | None:
    """The first failed job in the newest of Snakemake's logs that names this run."""
    for log in sorted((root / ".snakemake/log").glob("*.snakemake.log"), reverse=True):
        text = log.read_text(encoding="utf-8", errors="replace")
        if f"{paths.root}/" not in text:
            continue
        failed = _RULE.search(text)
        if failed is None:
            return None
        where = _LOG.search(text, failed.end())
        return f"rule {failed[1]}: {_last_line(root / where[1] if where else None)} (see {log})"
    return None


def _last_line(path: Path | None) -> str:
    """What is known of a job that ended without a message: it was killed or never started."""
    if path is None or not path.is_file():
        return "ended without a message or a log"
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    written = [line.strip() for line in lines if line.strip()] or ["(empty)"]
    return f"ended without a message; last line of {path}: {written[-1]}"
