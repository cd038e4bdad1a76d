"""Joint tables of the pairs whose job finished (torch-free)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.errors import UserError
from actshift.io.missed import first_missed, has_numbers, why_without


@dataclass(frozen=True)
class JoinContext:
    """What the joint tables of a study are made from.

    Attributes:
        folders: Stage -> folder of each pair (or seed), in the order wanted; where a job failed
            there is no folder, where a gate was missed a marker.
        published: Folder of the published CSV files.
        files: Other inputs by name.
        zoo_sizes: Size of the zoo's language for each pair whose tuned model is of the zoo.
        seed: Of resampling.
        settings: The keys of the study's settings that are read here.
    """

    folders: Mapping[str, Mapping[str, Path]]
    published: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    zoo_sizes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def context_of(job: Any, *, published: Sequence[Path]) -> JoinContext:
    """Return the context of a table job.

    Args:
        job: What `Plan.table_job` gave, as attributes.
        published: The published files that the study reads, all in one folder.
    """
    return JoinContext(
        folders={
            stage: {name: Path(folder) for name, folder in of_stage.items()}
            for stage, of_stage in job.folders.items()
        },
        published=published[0].parent if published else Path(),
        files={name: Path(file) for name, file in job.files.items()},
        zoo_sizes=job.zoo_sizes,
        seed=job.seed,
        settings=job.settings,
    )


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
            f"{asker or rule}: none of {', '.join(pairs) or '(no pairs)'} has {needed}; "
            f"see the log of rule {rule}"
        )
    return present


def join_rows(
    pairs: Mapping[str, Path],
    rows_of: Callable[[str, Path], Mapping[str, list[dict[str, object]]]],
    columns: Mapping[str, Sequence[str]],
    *,
    rule: str,
) -> dict[str, pd.DataFrame]:
    """Join the rows of all pairs that have their folder, table by table.

    Args:
        pairs: Folder of each pair, in the order wanted; a pair whose job failed has none.
        rows_of: From name and folder of a pair to its rows, by table.
        columns: Columns of each table.
        rule: Rule that makes the folders.

    Returns:
        The tables.

    Raises:
        UserError: No pair has its folder.
    """
    present = finished_pairs(pairs, rule=rule, needed="its rows")
    joint: dict[str, list[dict[str, object]]] = {name: [] for name in columns}
    for pair, folder in present.items():
        rows_of_pair = rows_of(pair, folder)
        for name, rows in rows_of_pair.items():
            joint[name] += rows
        counts = ", ".join(f"{len(rows)} rows of {name}" for name, rows in rows_of_pair.items())
        print(f"{rule} {pair}: {counts}")
    for pair in pairs:
        if pair not in present:
            print(f"{rule}: {pair} is left out: {why_without(pairs[pair])}")
    return {name: pd.DataFrame(joint[name], columns=list(of)) for name, of in columns.items()}
