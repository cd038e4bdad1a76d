"""Joint tables of the pairs whose job finished (torch-free)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from actshift.errors import UserError
from actshift.io.missed import first_missed, has_numbers, why_without
from actshift.io.tables import write_table


def finished_pairs(
    pairs: Mapping[str, Path], *, rule: str, needed: str, asker: str | None = None
) -> dict[str, Path]:
    """The pairs that have numbers, in the order given; none where all of them missed a gate.

    Args:
        pairs: Folder of each pair; a pair whose job failed has none.
        rule: Rule that makes the folders.
        needed: What the folder holds, for the message.
        asker: Who needs the folders, where it is not the rule.

    Raises:
        UserError: No pair has its folder.
    """
    present = {pair: folder for pair, folder in pairs.items() if has_numbers(folder)}
    if not present and first_missed(pairs.values()) is None:
        raise UserError(
            f"{asker or rule}: none of the pairs {', '.join(pairs) or '(none)'} has {needed}; "
            f"see the log of rule {rule}"
        )
    return present


def join_rows(
    pairs: Mapping[str, Path],
    rows_of: Callable[[str, Path], Mapping[str, list[dict[str, object]]]],
    columns: Mapping[str, Sequence[str]],
    *,
    rule: str,
    out: Path,
) -> list[str]:
    """Write every table with the rows of all pairs that have their folder.

    Args:
        pairs: Folder of each pair, in the order wanted; a pair whose job failed has none.
        rows_of: From name and folder of a pair to its rows, by table.
        columns: Columns of each table.
        rule: Rule that makes the folders.
        out: Folder of the tables.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder.
    """
    present = finished_pairs(pairs, rule=rule, needed="its rows")
    joint: dict[str, list[dict[str, object]]] = {name: [] for name in columns}
    for pair, folder in present.items():
        found = rows_of(pair, folder)
        for name, rows in found.items():
            joint[name] += rows
        told = ", ".join(f"{len(rows)} rows of {name}" for name, rows in found.items())
        print(f"{rule} {pair}: {told}")
    for name, wanted in columns.items():
        write_table(pd.DataFrame(joint[name], columns=list(wanted)), out / f"{name}.csv")
    missing = [pair for pair in pairs if pair not in present]
    for pair in missing:
        print(f"{rule}: {pair} is left out: {why_without(pairs[pair])}")
    return missing
