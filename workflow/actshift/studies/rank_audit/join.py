"""Concatenate the pairs' rank-audit tables and put the published numbers beside them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import finished_pairs
from actshift.io.missed import missed_in
from actshift.io.tables import read_table, write_table
from actshift.studies.rank_audit.columns import COLUMNS
from actshift.studies.rank_audit.summary import published_summary

#: Files of `resources/published` the summary needs.
PUBLISHED_RANKS = "effective_rank_per_layer.csv"
PUBLISHED_COSINES = "arditi_cosine_per_layer.csv"


def aggregate_rank_audit(*, pairs: Mapping[str, Path], published: Path, out: Path) -> list[str]:
    """Write one table a name over all pairs that have theirs, and `pairs.csv` on who is there.

    A pair whose job failed left no folder: it is reported as missing and the others go on.

    Args:
        pairs: Table folder of each pair, in the order wanted.
        published: Folder of the published CSV files.
        out: Folder of the tables.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has tables, or a pair's folder lacks one.
    """
    present = finished_pairs(pairs, rule="rank_audit", needed="tables")
    missing = [pair for pair in pairs if pair not in present]
    for name in COLUMNS:
        parts = [read_table(folder / f"{name}.csv") for folder in present.values()]
        if name == "summary":
            ranks = read_table(published / PUBLISHED_RANKS)
            parts.append(published_summary(ranks, read_table(published / PUBLISHED_COSINES)))
        write_table(_stack(parts, name), out / f"{name}.csv")
    status = [(pair, _status(folder)) for pair, folder in pairs.items()]
    write_table(pd.DataFrame(status, columns=["pair", "status"]), out / "pairs.csv")
    return missing


def _status(folder: Path) -> str:
    missed = missed_in(folder)
    if missed is not None:
        return missed.status
    return "present" if folder.is_dir() else "missing"


def _stack(parts: list[pd.DataFrame], name: str) -> pd.DataFrame:
    """Rows of all parts, in the table's own column order."""
    rows = [row for part in parts for row in part.to_dict("records")]
    table = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    return table.astype({"layer": "Int64"}) if "layer" in table else table
