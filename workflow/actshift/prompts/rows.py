"""What JSONL sets of any kind have in common: reading lines, keys of a row, ids and clusters."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from actshift.errors import UserError
from actshift.vocab import SPLITS, Split


@runtime_checkable
class Member(Protocol):
    """What every row of a set has."""

    @property
    def id(self) -> str:
        """Unique inside the set."""
        ...

    @property
    def cluster(self) -> str:
        """Unit of resampling."""
        ...

    @property
    def split(self) -> Split:
        """A function of the cluster."""
        ...


def json_lines(path: Path, *, missing: str) -> Iterator[tuple[str, Any]]:
    """Yield `file:line` and the JSON value of every line that is not blank, in order.

    `missing` is the message where the file is not there.

    Raises:
        UserError: The file is missing, is not UTF-8, or a line is not JSON (names file and line).
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
        yield where, value


def checked_row(
    row: object,
    *,
    where: str,
    what: str,
    keys: Sequence[str],
    optional: Collection[str],
    filled: Sequence[str],
    other: Collection[str] = (),
) -> dict[str, Any]:
    """Check the keys and values of one JSON object.

    `where` (`file:line`) and `what` (`a prompt`) are for the message. A row may have all `keys`,
    may lack the `optional` ones, and must not leave the `filled` ones blank. The caller checks
    those in `other`, whose value is no string.

    Raises:
        UserError: A key is missing, unknown, blank or of the wrong type, or the split is unknown.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    missing = [key for key in keys if key not in row and key not in optional]
    unknown = sorted(str(key) for key in row if key not in keys)
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise UserError(f"{where}: {'; '.join(faults)}; {what} has the keys {', '.join(keys)}")
    for key, value in row.items():
        if key not in other and not isinstance(value, str):
            raise UserError(f"{where}: {key} must be a string, found {type(value).__name__}")
    for key in filled:
        if not row[key].strip():
            raise UserError(f"{where}: {key} is empty")
    if row["split"] not in SPLITS:
        raise UserError(f"{where}: split '{row['split']}' is not one of {', '.join(SPLITS)}")
    return row


def check_members(rows: Iterable[Member], *, where: str) -> None:
    """Refuse a repeated id, and a cluster that lies in two splits.

    Raises:
        UserError: naming the id or the cluster.
    """
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for row in rows:
        if row.id in seen:
            raise UserError(f"{where}: id '{row.id}' occurs twice; ids must be unique in a set")
        seen.add(row.id)
        if split_of.setdefault(row.cluster, row.split) != row.split:
            raise UserError(
                f"{where}: cluster '{row.cluster}' lies in the splits "
                f"{split_of[row.cluster]} and {row.split}; splits go by cluster"
            )
