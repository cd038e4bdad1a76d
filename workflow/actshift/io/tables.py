"""Tidy tables as CSV: one float format, one line ending, whole files only."""

from pathlib import Path

import pandas as pd

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, byte-identical for equal tables.

    Args:
        table: Plain columns; the index is dropped. Missing values become empty cells.
        path: The CSV file.

    Numerics:
        Floats keep 10 significant digits (relative error below 5e-10).
    """
    text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    atomic_write_text(path, text)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table written by `write_table`; only empty cells are missing values.

    Raises:
        UserError: The file is missing or has no header.
    """
    try:
        # "NA", "None" and "null" are ordinary words in a category column.
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the rule that makes it") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a CSV table ({str(error).strip()})") from None
