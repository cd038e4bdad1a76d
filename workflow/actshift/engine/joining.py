"""Joint tables of the pairs whose job finished (torch-free)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.errors import UserError
from actshift.io.missed import first_missed, has_numbers, why_without


@dataclass(frozen=True)
class JoinContext:
    """What the joint tables of a study are made from.

    `folders` go from stage to the folder of each pair (or seed), in the order wanted; where a job
    failed there is no folder, where a gate was missed a marker. `published` is the folder of the
    published CSV files, `files` are other inputs by name, `settings` the keys of the study's
    settings that are read here, `zoo_sizes` the size of the zoo's language for each pair whose
    tuned model is of the zoo.
    """

    folders: Mapping[str, Mapping[str, Path]]
    published: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    zoo_sizes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def join_context(job: Any, *, published: Sequence[Path]) -> JoinContext:
    """Return the context of a table job, from what `Plan.table_job` gave, as attributes.

    The `published` files that the study reads lie in one folder.
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

    `rule` makes the folders, `asker` needs them, `needed` is what they hold, for the message. A
    UserError where no pair has its folder.
    """
    present = {pair: folder for pair, folder in pairs.items() if has_numbers(folder)}
    if not present and first_missed(pairs.values()) is None:
        raise UserError(
            f"{asker or rule}: none of {', '.join(pairs) or '(no pairs)'} has {needed}; "
            f"see the log of rule {rule}"
        )
    return present


def stacked(tables: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all tables, with these columns in this order."""
    rows = [row for table in tables for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=list(columns))


def join_rows(
    pairs: Mapping[str, Path],
    rows_of: Callable[[str, Path], Mapping[str, list[dict[str, object]]]],
    columns: Mapping[str, Sequence[str]],
    *,
    rule: str,
) -> dict[str, pd.DataFrame]:
    """Join the rows of all pairs that have their folder, table by table.

    `rows_of` goes from name and folder of a pair to its rows, by table. A pair whose job failed has
    no folder; a UserError where no pair has one.
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
