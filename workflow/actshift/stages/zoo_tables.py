"""Rates of all zoo checkpoints of a run, and how often each was trained (torch-free)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actshift.io.missed import was_passed_on
from actshift.io.tables import read_table
from actshift.zoo.behaviour import ATTEMPT_COLUMNS, COLUMNS, behaviour_table


def collect_behaviour(rows: Sequence[Path]) -> pd.DataFrame:
    """Aggregate the judged answers of all zoo checkpoints of a run.

    Args:
        rows: one CSV of answers a checkpoint, as `train_zoo` wrote it; empty for one that was not
            trained, because what it starts from missed its gate.

    Returns:
        The table of `actshift.zoo.behaviour.behaviour_table`, checkpoints in the order given;
        only its header for a run without zoo models.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    tables = [behaviour_table(read_table(path)) for path in rows if not was_passed_on(path)]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    records = [record for table in tables for record in table.to_dict("records")]
    return pd.DataFrame(records, columns=list(COLUMNS))


def collect_attempts(tried: Sequence[Path]) -> pd.DataFrame:
    """Join what every zoo checkpoint of a run took to train.

    Args:
        tried: one CSV a checkpoint, as `train_zoo` wrote it; empty for one that was not trained.

    Returns:
        A row an attempt; only a header for a run without zoo models.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    tables = [read_table(path) for path in tried if not was_passed_on(path)]
    records = [row for table in tables for row in table.to_dict("records")]
    return pd.DataFrame(records, columns=list(ATTEMPT_COLUMNS))
