"""A table of the page as plain cells: the template only loops."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Rows shown of one table; the page names the file that holds the rest.
MAX_ROWS = 100


@dataclass(frozen=True, slots=True)
class Cells:
    """Headers and formatted rows, with what was left out."""

    name: str
    path: str
    headers: tuple[str, ...]
    #: Columns of numbers, which are aligned right.
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int


def cells_of(name: str, path: str, table: pd.DataFrame, *, max_rows: int = MAX_ROWS) -> Cells:
    """Format a table for the page.

    Args:
        name: heading.
        path: the whole table's file, relative to the run.
        table: its rows.
        max_rows: rows to keep.

    Returns:
        Text cells: integers as they are, other numbers with three significant digits.
    """
    numeric = tuple(
        pd.api.types.is_numeric_dtype(table[column]) and table[column].dtype != bool
        for column in table.columns
    )
    shown = table.head(max_rows)
    columns = [[_text(value) for value in shown[column]] for column in shown.columns]
    rows = tuple(zip(*columns, strict=True))
    return Cells(name, path, tuple(map(str, table.columns)), numeric, rows, len(table))


def _text(value: object) -> str:
    """One cell."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
    return str(value)
