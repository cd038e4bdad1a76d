"""Join the norms of all pairs."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.example.study import STUDY


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs.

    Raises:
        UserError: No pair has its table.
    """
    return join_rows(context.folders["example"], _rows, STUDY.columns, rule="example")


def _rows(pair: str, folder: Path) -> dict[str, list[dict[str, object]]]:
    table = read_table(folder / "norms.csv").assign(pair=pair)
    largest = table.nlargest(1, "relative")
    return {
        "example_norm": table.to_dict("records"),
        "example_summary": largest.to_dict("records"),
    }
