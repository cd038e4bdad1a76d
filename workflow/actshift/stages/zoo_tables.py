"""tables/zoo_behaviour.csv: the rates of all zoo checkpoints of a run (torch-free)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from actshift.io.tables import read_table
from actshift.zoo.behaviour import COLUMNS, behaviour_table


def collect_behaviour(rows: Sequence[Path]) -> pd.DataFrame:
    """Aggregate the judged answers of all zoo checkpoints of a run.

    Args:
        rows: one CSV of answers a checkpoint, as `train_zoo` wrote it.

    Returns:
        The table of `actshift.zoo.behaviour.behaviour_table`, checkpoints in the order given;
        only its header for a run without zoo models.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    tables = [behaviour_table(read_table(path)) for path in rows]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    records = [record for table in tables for record in table.to_dict("records")]
    return pd.DataFrame(records, columns=list(COLUMNS))
