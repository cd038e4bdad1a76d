"""Rows of the localization tables that sentences speak of: harmful pairs at one length."""

import pandas as pd

from actshift.report.point import number
from actshift.report.tables import Tables, first, select


def primary(
    tables: Tables, name: str, *, length: str = "natural", **cell: str | int | bool
) -> pd.DataFrame:
    """The rows of the primary condition at one length, and of a further cell.

    Args:
        tables: table name -> rows.
        name: of the table.
        length: natural, or matched where a table has no other.
        **cell: column -> value, such as `pair`.
    """
    rows = of_condition(select(tables.get(name)))
    return select(rows, length=length, **cell) if len(rows) else rows


def of_condition(rows: pd.DataFrame) -> pd.DataFrame:
    """Harmful pairs, as the gate takes them; the first condition where there are none."""
    if rows.empty:
        return rows
    conditions = list(rows["condition"].unique())
    return select(rows, condition="harmful" if "harmful" in conditions else conditions[0])


def condition_of(rows: pd.DataFrame) -> str:
    """Whose preference pairs these are."""
    return str(rows["condition"].iloc[0])


def ends(rows: pd.DataFrame, column: str) -> str:
    """A value with its interval."""
    value, low, high = (number(first(rows, f"{column}{end}")) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"
