"""The tables that figures and page read: one place that knows where they lie."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.studies.contract import Catalogue

Tables = Mapping[str, pd.DataFrame]

#: Columns of names: a pair may be called "7", and a set of directions "3".
_NAMES = ("pair", "model", "reference", "directions", "donor", "receiver")


def load_tables(folder: Path, catalogue: Catalogue) -> dict[str, pd.DataFrame]:
    """Read what exists of the known tables; a missing or empty file is left out.

    Args:
        folder: a run's `tables/` folder.
        catalogue: the tables there are.

    Returns:
        Table name -> rows, in the order of the catalogue.

    Raises:
        UserError: a file lacks a column that the report needs.
    """
    tables = {}
    for name, known in catalogue.tables.items():
        path = catalogue.path(folder, name)
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            continue
        table = read_table(path)
        missing = [column for column in known.names if column not in table.columns]
        if missing:
            raise UserError(
                f"{path}: no column {', '.join(missing)}; written by another version: "
                "delete the file and run again"
            )
        names = [column for column in _NAMES if column in table.columns]
        table[names] = table[names].astype(object).fillna("").astype(str)
        if len(table):
            tables[name] = table
    return tables


def select(table: pd.DataFrame | None, **equal: str | int | bool) -> pd.DataFrame:
    """Rows where every named column has the given value; no table and no rows give no rows."""
    if table is None or table.empty:
        return pd.DataFrame() if table is None else table
    keep = pd.Series(True, index=table.index)
    for column, value in equal.items():
        keep &= table[column] == value
    return table.loc[keep]


def values(table: pd.DataFrame, column: str) -> Float[np.ndarray, " row"]:
    """A column's numbers without the missing ones."""
    numbers = table[column].to_numpy(dtype=float)
    return numbers[~np.isnan(numbers)]


def median(table: pd.DataFrame, column: str) -> float:
    """Median of a column's numbers; NaN when it has none."""
    numbers = values(table, column)
    return float(np.median(numbers)) if len(numbers) else float("nan")


def mean(table: pd.DataFrame, column: str) -> float:
    """Mean of a column's numbers; NaN when it has none."""
    numbers = values(table, column)
    return float(np.mean(numbers)) if len(numbers) else float("nan")


def first(table: pd.DataFrame, column: str) -> float:
    """A column's first number: for what is the same in every row, such as n."""
    return float(table[column].to_numpy()[0])


def published_value(published: pd.DataFrame | None, table: str, quantity: str) -> float:
    """One number of the paper; NaN where it is not there."""
    if published is None:
        return float("nan")
    rows = published[(published["table"] == table) & (published["quantity"] == quantity)]
    return float(rows["value"].iloc[0]) if len(rows) else float("nan")
