"""What every Snakemake script does around its stage: threads, log, one-line errors, status.

Standard library only: thread counts must be set before numpy or torch are imported.
"""

import gc
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from actshift.errors import UserError, refusal_of
from actshift.io.missed import Missed, first_missed, kept_name, mark_missed

if TYPE_CHECKING:
    from actshift.engine.context import JobContext

#: Endings of outputs that are files; all others are folders.
FILES = frozenset({".csv", ".parquet", ".json", ".jsonl"})
#: Objects made and not freed until the garbage collector runs; 700 is Python's own.
COLLECT_AFTER = 50_000
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def job(snakemake: Any, *, joint: bool = False) -> Iterator[None]:
    """Run a stage as a Snakemake job.

    Output goes to the job's log. A `UserError` ends the job with its one line, printed and
    kept in `results/<run>/status` for the report, and so does what the file system refuses;
    anything else keeps its traceback in the log.
    Where an input stands for a missed gate, the outputs stand for it too and the stage is not run.
    Nothing of a script runs after this: a good job ends its process here.

    Args:
        snakemake: the object Snakemake injects into the script.
        joint: whether the stage goes on without what missed its gate, as joint tables do.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(snakemake.threads)
    # What the libraries load lives to the end of the job. Searching it for cycles again and again,
    # and taking it apart at the end, would be two of the six seconds that a start costs.
    gc.set_threshold(COLLECT_AFTER)
    status = status_file(Path(snakemake.params.status), snakemake.rule, snakemake.wildcards)
    kept = kept_rows(Path(snakemake.params.status), snakemake.output)
    log = Path(snakemake.log[0])
    try:
        with _refusals(log):
            for stale in (status, *kept.values()):
                stale.unlink(missing_ok=True)
            log.parent.mkdir(parents=True, exist_ok=True)
            missed = None if joint else first_missed(map(Path, snakemake.input))
            if missed is not None:
                pass_on(missed, snakemake.output)
                log.write_text(f"{missed.subject}: {missed.status}; nothing is measured here\n")
                # A script ends as Python does: with 0, and its outputs are there.
                sys.exit(0)
            stream = log.open("w", buffering=1)
    except UserError as error:
        _fail(status, snakemake, str(error))
    try:
        with _refusals(log), redirect_stdout(stream), redirect_stderr(stream):
            yield
    except UserError as error:
        with suppress(OSError):  # a full disk must not hide the first error, here and below
            stream.write(f"{error}\n")
            for rows, copy in kept.items():
                if rows.is_file():  # Snakemake deletes the outputs of a failed job
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(rows, copy)
        _fail(status, snakemake, str(error))
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc(file=stream)
        _fail(status, snakemake, f"{type(error).__name__}: {error} (traceback in {log})")
    finally:
        with suppress(OSError):
            stream.close()
        _describe_machine(status, snakemake)
    if getattr(sys.modules["__main__"], "snakemake", None) is snakemake:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def context_of(snakemake: Any, *, staging: str) -> "JobContext":
    """Return the circumstances of a job of one pair; `staging` is a folder below the cache."""
    from actshift.engine.context import JobContext
    from actshift.paths import CACHE

    params = snakemake.params
    return JobContext(
        run=params.get("run", ""),
        pair=snakemake.wildcards.pair,
        dtype=params.get("dtype", "auto"),
        device=snakemake.config.get("device", "auto"),
        seed=params.seed,
        code=params.code,
        staging=CACHE / staging,
        zoo_size=params.get("zoo_size"),
    )


@contextmanager
def _refusals(log: Path) -> Iterator[None]:
    """Make a UserError of what the file system refuses: a read-only folder, a full disk.

    Whatever library meets it raises its own error, and none of them is about the code.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        refused = refusal_of(error, log)
        if refused is None:
            raise
        raise UserError(refused) from error


def pass_on(missed: Missed, outputs: Iterable[str]) -> None:
    """Leave a marker in place of every folder that a job makes, and an empty file for a file."""
    for output in map(Path, outputs):
        if output.suffix in FILES:
            output.parent.mkdir(parents=True, exist_ok=True)
            # The checksum of an earlier table would call the empty file damaged.
            output.with_name(f"{output.name}.sha256").unlink(missing_ok=True)
            output.write_bytes(b"")
        else:
            mark_missed(output, missed)


def status_file(folder: Path, rule: str, wildcards: Any) -> Path:
    """Return where a failed job leaves its one line."""
    parts = [rule, *(str(value) for value in wildcards)]
    return folder / f"{'--'.join(parts).replace('/', '-')}.json"


def kept_rows(folder: Path, outputs: Any) -> dict[Path, Path]:
    """Return where outputs named `rows` and `tried` are kept when their job fails its gate."""
    rows = [Path(file) for name, file in outputs.items() if name in ("rows", "tried")]
    return {file: folder / kept_name(file) for file in rows}


def _describe_machine(status: Path, snakemake: Any) -> None:
    """Leave what this job computed with; a job whose numbers are good never fails for it."""
    with suppress(Exception):
        from actshift.io.machine import MACHINES, write_machine

        file = status.parent.with_name(MACHINES) / status.name
        write_machine(file, rule=snakemake.rule, threads=int(snakemake.threads))


def _fail(status: Path, snakemake: Any, message: str) -> NoReturn:
    """Keep and print a job's one line, then end the job."""
    line = " ".join(message.split())
    what = ", ".join(f"{key}={value}" for key, value in snakemake.wildcards.items())
    with suppress(OSError):
        status.parent.mkdir(parents=True, exist_ok=True)
        status.write_text(json.dumps({"rule": snakemake.rule, "job": what, "message": line}))
    print(f"actshift {snakemake.rule} {what}: {line}", file=sys.stderr)
    # Not sys.exit(line): Snakemake's preamble would print it a second time.
    sys.exit(1)
