"""A missed gate as a result: the marker that stands where a stage's output would.

A model or an adapter that does not do what a study asks of it is no error. Its stage leaves a
folder with a marker in place of numbers; stages that need the folder pass the marker on, and tables
say `not measured: gate missed, spillover 35 % of 40 %` for what is not there.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text, publishing

#: Name of the marker in a stage's folder, or of the file beside a stage's table.
MISSED = "missed.json"


@dataclass(frozen=True, slots=True)
class Missed:
    """One missed gate.

    Attributes:
        subject: What missed it, as the page names it: `ministral: insecure adapter`.
        reason: The rate and the demand: `gate missed, spillover 35 % of 40 %`.
        detail: One sentence with every rate, the demand and what can be tried.
        stage: The stage whose gate it is; markers that were passed on keep it.
    """

    subject: str
    reason: str
    detail: str
    stage: str

    @property
    def status(self) -> str:
        """How a row of a table says it."""
        return f"not measured: {self.reason}"


def against(rate: float, limit: float, *, at_least: bool = True) -> str:
    """A rate against its limit: `35 % of 40 %`, or `8 % of at most 5 %`.

    A NaN rate reads `unknown`. `at_least` says whether the limit is the least that is asked for, or
    the most.
    """
    measured = "unknown" if isnan(rate) else f"{100 * rate:.3g} %"
    return f"{measured} of {'' if at_least else 'at most '}{100 * limit:.3g} %"


def kept_name(rows: Path) -> str:
    """Name of the copy in `status` of an output named `rows`, whose job failed."""
    return f"{rows.parent.name}.{rows.name}"


def place_of_rows(rows: Path, *, strict: bool) -> str:
    """Where a run keeps the rows that a gate was decided on, from the run's folder.

    Where the missed gate fails the job (`strict`), its outputs,
    `results/<run>/<kind>/<name>/<file>`, are deleted, and its rows are kept beside its status.
    """
    return f"status/{kept_name(rows)}" if strict else "/".join(rows.parts[-3:])


def mark_missed(folder: Path, missed: Missed) -> None:
    """Publish a stage's folder that holds the marker and nothing else."""
    with publishing(folder) as partial:
        partial.mkdir()
        write_marker(partial, missed)


def write_marker(folder: Path, missed: Missed) -> None:
    """Put the marker into a folder that exists."""
    text = json.dumps(asdict(missed), indent=1, sort_keys=True)
    atomic_write_text(folder / MISSED, text + "\n")


def missed_in(folder: Path) -> Missed | None:
    """The missed gate that a stage's folder stands for, None where it holds numbers or nothing.

    Raises:
        UserError: The marker is damaged.
    """
    try:
        text = (folder / MISSED).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Missed(**json.loads(text))
    except (ValueError, TypeError):
        raise UserError(
            f"{folder / MISSED} is no marker of a missed gate; delete {folder}, and the next run "
            "makes it again"
        ) from None


def has_numbers(folder: Path) -> bool:
    """Whether a stage left its numbers: not where its job failed or a gate was missed."""
    return folder.is_dir() and missed_in(folder) is None


def was_passed_on(file: Path) -> bool:
    """Whether a job left an empty file because what it needs missed its gate."""
    return file.is_file() and file.stat().st_size == 0


def why_without(folder: Path) -> str:
    """Why a folder has no numbers, in words."""
    missed = missed_in(folder)
    return "its job failed" if missed is None else missed.status


def first_missed(folders: Iterable[Path]) -> Missed | None:
    """The first missed gate among the folders that a stage needs."""
    return next((missed for missed in map(missed_in, folders) if missed is not None), None)
