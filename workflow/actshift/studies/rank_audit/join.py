"""Join the pairs' rank-audit tables and put the published numbers beside them."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, finished_pairs
from actshift.io.missed import missed_in
from actshift.io.tables import read_table
from actshift.studies.rank_audit.study import COLUMNS, STUDY
from actshift.studies.rank_audit.summary import published_summary


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs; `pairs` says which pairs there are.

    A pair whose job failed left no folder: it is reported as missing and the others go on.

    Raises:
        UserError: No pair has tables, or a pair's folder lacks one.
    """
    pairs = context.folders["rank_audit"]
    present = finished_pairs(pairs, rule="rank_audit", needed="tables")
    tables = {}
    for name in COLUMNS:
        if name == "pairs":
            continue
        parts = [read_table(folder / f"{name}.csv") for folder in present.values()]
        if name == "summary":
            released = [read_table(context.published / file) for file in STUDY.published]
            parts.append(published_summary(*released))
        tables[name] = _stack(parts, name)
    status = [(pair, _status(folder)) for pair, folder in pairs.items()]
    return {**tables, "pairs": pd.DataFrame(status, columns=list(COLUMNS["pairs"]))}


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
