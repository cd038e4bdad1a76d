"""`actshift doctor --run`: why a run stopped, first cause first."""

import json
import re
from pathlib import Path

import typer

from actshift.errors import UserError
from actshift.paths import RunPaths

_RULE = re.compile(r"^Error in rule (\S+):", re.MULTILINE)
_LOG = re.compile(r"^\s+log: (\S+)", re.MULTILINE)


def examine_run(folder: Path) -> bool:
    """Print the first cause of a run's failure, then how many other jobs failed.

    A job that ended with a message left it in `status/`. A job that was killed could not, so
    then Snakemake's own log and the last line of that job's log are read.

    Args:
        folder: `results/<run>`.

    Returns:
        True when the run is finished and no job of it failed.

    Raises:
        UserError: it is no run's folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected results/<run>")
    paths = RunPaths(folder.name)
    root = folder.resolve().parents[1]
    reasons = _told(folder / paths.status.name)
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


def _told(status: Path) -> list[str]:
    """What failed jobs left, in the order in which they failed."""
    files = sorted(status.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [_line(path) for path in files]


def _line(path: Path) -> str:
    try:
        failure = json.loads(path.read_text(encoding="utf-8"))
        return f"{failure['rule']} {failure['job']}: {failure['message']}"
    except (ValueError, KeyError):
        # A full disk may have cut the message off; that the job failed is still known.
        return f"{path.stem}: its message in {path} is not readable; is the disk full?"


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
