"""The claims table as the page shows it: numbers as text, empty cells as nothing."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from actshift.report.point import number
from actshift.studies.contract import Catalogue

#: Verdicts that were decided by numbers, so that k of N says something.
_COUNTED = ("holds", "fails", "inconclusive")


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One published claim with its verdict.

    Attributes:
        name: its id in the claims file.
        statement: what was claimed.
        verdict: holds, fails, inconclusive, by construction or not measured.
        holds_in: k of N pairs or seeds.
        measured: value and interval, such as `0.96 (0.94 to 0.97)`.
        published: the published value.
        reason: why the verdict is no plain yes or no.
        basis: what decided it: rule, cell and table.
        source: where it was published.
    """

    name: str
    statement: str
    verdict: str
    holds_in: str
    measured: str
    published: str
    reason: str
    basis: str
    source: str


def claims_of(
    table: pd.DataFrame | None, studies: Collection[str], catalogue: Catalogue
) -> pd.DataFrame | None:
    """The claims that tables of some studies decide; those of a table nobody knows stay, too."""
    if table is None:
        return None
    files = table["table"].str.removesuffix(".csv")
    owners = [catalogue.study_of(*names) for names in zip(table["study"], files, strict=True)]
    return table[[owner is None or owner in studies for owner in owners]]


def claim_rows(table: pd.DataFrame | None) -> list[ClaimRow]:
    """Rows of `claims.csv` in its order; no table gives no rows."""
    if table is None:
        return []
    return [
        ClaimRow(
            name=_text(row["claim"]),
            statement=_text(row["statement"]),
            verdict=_text(row["verdict"]),
            # "0 of 4" beside "not measured" would read as four refutations.
            holds_in=_text(row["holds_in"]) if row["verdict"] in _COUNTED else "",
            measured=_measured(row),
            published=_text(row["published"]),
            reason=_text(row["reason"]),
            basis="; ".join(_text(row[key]) for key in ("decided_by", "primary_cell", "table")),
            source=_text(row["source"]),
        )
        for row in table.to_dict("records")
    ]


def claims_line(rows: list[ClaimRow]) -> str:
    """How many claims got which verdict, most frequent first; empty without claims."""
    counts = pd.Series([row.verdict for row in rows], dtype=object).value_counts()
    return ", ".join(f"{counts[name]} {name}" for name in counts.index)


def _measured(row: dict) -> str:
    """Value and interval; empty where nothing was measured."""
    value, low, high = (float(row[key]) for key in ("measured", "low", "high"))
    if not np.isfinite(value):
        return ""
    if not (np.isfinite(low) and np.isfinite(high)):
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def _text(value: Any) -> str:
    """A cell of names: what is missing is empty."""
    return "" if pd.isna(value) else str(value)
