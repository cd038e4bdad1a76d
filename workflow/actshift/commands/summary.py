"""`actshift summary`: what a run measured, missed, failed and cost, in a screenful of text."""

import json
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.missed import Missed
from actshift.paths import RECORD, RunPaths
from actshift.report.run_record import (
    bytes_by_folder,
    measured_by_study,
    missed_of_run,
    models_line,
    pair_facts,
    read_failures,
    seconds_by_rule,
    studies_seen,
)
from actshift.studies.registry import CATALOGUE
from actshift.vocab import counted

WIDTH = 96
#: Missed gates that are shown one by one, one failure fewer, twice as many rules.
SHOWN = 3
_LABEL = 10
_MARKS = ("checkpoints", "zoo", "timings", "status", "tables", RECORD)


def print_summary(run_dir: Path) -> None:
    """Print the summary of a run's folder, `results/<run>`.

    Raises:
        UserError: it is no run's folder, or a file of it is damaged.
    """
    if not any((run_dir / mark).exists() for mark in _MARKS):
        raise UserError(f"{run_dir}: no run; expected results/<run>, as in results/demo")
    print("\n".join(summary_lines(run_dir, config=_settings(run_dir))))


def end_of_run(run_dir: Path, *, config: Mapping[str, Any], started: float, failed: bool) -> None:
    """Print the summary when Snakemake ends; one line where it made nothing.

    `started` is when Snakemake read the workflow, in seconds since the epoch. `failed` says whether
    a job failed; one that was killed leaves no message.
    """
    try:
        finished = [file.stat().st_mtime for file in run_dir.glob("timings/*/*.tsv")]
        if not failed and max(finished, default=0.0) < started:
            print(f"actshift: no job was run; actshift summary {run_dir}", flush=True)
            return
        lines = summary_lines(run_dir, config=config, seconds=time.time() - started, failed=failed)
    except (UserError, OSError) as error:
        lines = [f"actshift: no summary: {error}"]
    print("\n".join(lines), flush=True)


def summary_lines(
    run_dir: Path,
    *,
    config: Mapping[str, Any],
    seconds: float | None = None,
    failed: bool = False,
) -> list[str]:
    """The summary, missed gates first: about 25 lines at most, of at most 96 characters.

    Of the settings `run`, `pairs`, `only` and `studies` are read. `seconds` is the time from the
    start of Snakemake to its end, where that is known.

    Raises:
        UserError: a manifest is damaged.
    """
    pairs = pair_facts(run_dir, config)
    studies = config.get("studies", ())
    missed, failures = (
        missed_of_run(run_dir, pairs, studies, CATALOGUE),
        read_failures(run_dir / "status"),
    )
    measured = measured_by_study(run_dir, pairs, studies, CATALOGUE)
    page = run_dir / RunPaths("").report.name
    return [
        f"actshift: run {config.get('run', run_dir.name)}: "
        f"{counted(len(missed), 'missed gate')}, {counted(len(failures), 'failed job')}",
        *_missed_lines(missed),
        *_failed_lines(failures, run_dir, failed=failed),
        *_field("models", models_line(pairs) or "none"),
        *_field("pairs", ", ".join(pair.pair for pair in pairs) or "none", lines=1),
        *_field("measured", "; ".join(_measured(measured)) or "nothing"),
        *_field("time", _time(seconds_by_rule(run_dir), seconds), lines=2),
        *_field("disk", _disk(bytes_by_folder(run_dir)), lines=1),
        *_field("page", str(page) if page.is_file() else "none: the report has not been made"),
    ]


def _missed_lines(missed: Sequence[Missed]) -> Iterator[str]:
    """Each gate with its rate and demand, and the sentence that says what can be tried."""
    lines = 4 if len(missed) < SHOWN else 2
    for gate in missed[:SHOWN]:
        yield from _field("missed", f"{gate.subject}: {gate.reason}", lines=1)
        yield from _field("", gate.detail.removeprefix(f"{gate.subject}: "), lines=lines)
    if len(missed) > SHOWN:
        yield from _field("", f"and {len(missed) - SHOWN} more, on the page and in {RECORD}")


def _failed_lines(
    failures: Sequence[Mapping[str, str]], run_dir: Path, *, failed: bool
) -> Iterator[str]:
    """The first failed jobs, each with its reason."""
    shown = failures[: SHOWN - 1]
    for failure in shown:
        text = f"{failure.get('rule', '')} {failure.get('job', '')}: {failure.get('message', '')}"
        yield from _field("failed", text, lines=2)
    left = len(failures) - len(shown)
    if left or (failed and not failures):
        what = f"and {left} more" if left else "a job that left no message"
        yield from _field("" if shown else "failed", f"{what}: actshift doctor --run {run_dir}")


def _measured(measured: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[str]:
    """`rank_audit 4 of 4`, with the names of pairs that were not measured."""
    for study, names in measured.items():
        done, left = names["measured"], names["not_measured"]
        unit = "" if study != "calibration" else " seeds"
        out = f" (not {', '.join(left)})" if done and left else ""
        yield f"{study} {len(done)} of {len(done) + len(left)}{unit}{out}"


def _time(by_rule: Mapping[str, float], seconds: float | None) -> str:
    """Seconds on the clock where known, and in jobs, with the longest rules."""
    clock = "" if seconds is None else f"{seconds:.0f} s on the clock; "
    rules = list(by_rule.items())
    parts = [f"{rule} {spent:.0f}" for rule, spent in rules[: 2 * SHOWN]]
    rest = sum(spent for _, spent in rules[2 * SHOWN :])
    parts += [f"others {rest:.0f}"] if len(rules) > 2 * SHOWN else []
    return f"{clock}{sum(by_rule.values()):.0f} s in jobs: {', '.join(parts) or 'none'}"


def _disk(by_folder: Mapping[str, int]) -> str:
    """Size of the run's folder, with its largest parts."""
    parts = [f"{name} {_size(size)}" for name, size in list(by_folder.items())[:SHOWN]]
    return f"{_size(sum(by_folder.values()))}: {', '.join(parts)}"


def _size(count: int) -> str:
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count / 10**3:.0f} kB"


def _field(label: str, text: str, *, lines: int = 3) -> list[str]:
    """A labelled text, wrapped into a hanging column; what does not fit ends in dots."""
    return textwrap.wrap(
        " ".join(text.split()),
        width=WIDTH,
        initial_indent=f"  {label:{_LABEL}}",
        subsequent_indent=" " * (2 + _LABEL),
        max_lines=lines,
        placeholder=" ...",
        break_long_words=False,  # a path stays one word, to be copied
        break_on_hyphens=False,
    )


def _settings(run_dir: Path) -> Mapping[str, Any]:
    """Settings of a run as its record keeps them; before there is one, pairs by their folders."""
    file = run_dir / RECORD
    if not file.is_file():
        models = [folder.name for folder in sorted(run_dir.glob("checkpoints/*.*"))]
        names = dict.fromkeys(model.split(".")[0] for model in models)
        return {
            "pairs": [{"name": name} for name in names],
            "studies": studies_seen(run_dir, CATALOGUE),
        }
    try:
        return json.loads(file.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{file}: not readable as JSON with a key `settings`; make it again: "
            "snakemake -R report"
        ) from None
