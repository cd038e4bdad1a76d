"""Synthetic tables with the columns that their studies declare."""

from collections.abc import Mapping

import pandas as pd

from actshift.studies.registry import CATALOGUE


def declared(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Give every table its declared columns, empty where nothing is made up for one.

    Raises:
        ValueError: a table holds a column that no study declares.
    """
    return {name: _with_columns(name, table) for name, table in tables.items()}


def _with_columns(name: str, table: pd.DataFrame) -> pd.DataFrame:
    columns = CATALOGUE.tables[name].names
    unknown = [column for column in table.columns if column not in columns]
    if unknown:
        raise ValueError(f"table {name} declares no column {', '.join(unknown)}")
    return table.reindex(columns=list(columns))
