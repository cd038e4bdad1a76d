"""Stage tables: the folders of all pairs, or of the zoo -> joint tables (torch-free)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, stacked
from actshift.io.missed import was_passed_on
from actshift.io.tables import read_table, write_table
from actshift.studies.contract import named
from actshift.zoo.behaviour import ATTEMPT_COLUMNS, COLUMNS, behaviour_table


def make_tables(
    join: str, context: JoinContext, *, tables: Mapping[str, Sequence[str]], out: Path
) -> dict[str, int]:
    """Write the joint tables of a study, and return their rows by file name.

    `join` is the `module:function` of the study, `tables` holds the columns that the study
    declares, by file name: other ones are a ValueError.
    """
    rows = named(join)(context)
    for name, columns in tables.items():
        if list(rows[name].columns) != list(columns):
            raise ValueError(f"{join}: {name} has {list(rows[name].columns)}, not {list(columns)}")
        write_table(rows[name], out / f"{name}.csv")
    return {name: len(rows[name]) for name in tables}


def collect_behaviour(rows: Sequence[Path]) -> pd.DataFrame:
    """Aggregate the judged answers of all zoo checkpoints of a run, one CSV of `train_zoo` each.

    A file is empty where the checkpoint was not trained, because what it starts from missed its
    gate. Without zoo models the table has only its header.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    return stacked(map(behaviour_table, _trained(rows)), COLUMNS)


def collect_attempts(tried: Sequence[Path]) -> pd.DataFrame:
    """Join what every zoo checkpoint of a run took to train, likewise: a row an attempt.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    return stacked(_trained(tried), ATTEMPT_COLUMNS)


def _trained(files: Sequence[Path]) -> Iterator[pd.DataFrame]:
    return (read_table(file) for file in files if not was_passed_on(file))
