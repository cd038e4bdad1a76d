"""The tables that figures and page read: one place that knows where they lie."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.errors import UserError
from actshift.io.tables import read_table

Tables = Mapping[str, pd.DataFrame]

#: Table name -> the columns that figures and answers use.
COLUMNS: dict[str, tuple[str, ...]] = {
    "summary": ("pair", "source", "matrix", "inputs", "pooling", "n", "d", "mean_rank_eps"),
    "rank": ("pair", "matrix", "inputs", "category", "layer", "n", "d", "rank_eps", "top_share"),
    "cumulative_variance": ("pair", "matrix", "inputs", "layer", "k", "share", "share_centered"),
    "heldout_rank": ("pair", "matrix", "inputs", "layer", "k", "share_heldout", "share_null"),
    "inflation": ("pair", "inputs", "layer", "rank_naive", "rank_template", "ratio"),
    "cosine": ("pair", "matrix", "inputs", "layer", "cos_refusal", "cos_own_mean"),
    "cosine_by_category": ("pair", "matrix", "inputs", "category", "layer", "cos_refusal"),
    "concept_baseline": (
        "pair",
        "role",
        "concept",
        "layer",
        "matched",
        "n",
        "rank_eps",
        "log_ratio_low",
    ),
    "bootstrap": ("pair", "matrix", "inputs", "layer", "rank_eps"),
    "eps_sensitivity": ("pair", "matrix", "inputs", "scope", "eps", "rank_eps"),
    "n_sweep": ("pair", "matrix", "inputs", "layer", "n"),
    "pooling": ("pair", "matrix", "inputs", "layer", "pooling", "rank_eps"),
    "refusal_direction": ("pair", "layer", "position", "bypass", "induce", "kl", "chosen"),
    "refusal_effect": ("pair", "condition", "edit", "control", "refused", "change", "low", "high"),
    "zoo_behaviour": ("model", "variant", "split", "condition", "metric", "rate", "low", "high"),
    "claims": (
        "claim",
        "statement",
        "verdict",
        "holds_in",
        "reason",
        "measured",
        "low",
        "high",
        "published",
        "decided_by",
        "primary_cell",
        "table",
        "source",
    ),
    "claims_by_pair": ("claim", "name", "verdict", "reason", "measured", "low", "high"),
}
#: Tables that lie in `tables/` itself: they belong to no single study.
_OF_THE_RUN = frozenset({"zoo_behaviour", "claims", "claims_by_pair"})


def table_path(folder: Path, name: str) -> Path:
    """Where `name` lies under a run's `tables/` folder."""
    return folder / f"{name}.csv" if name in _OF_THE_RUN else folder / f"rank_audit/{name}.csv"


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read what exists of the known tables; a missing or empty file is left out.

    Args:
        folder: a run's `tables/` folder.

    Returns:
        Table name -> rows, in the order of `COLUMNS`.

    Raises:
        UserError: a file lacks a column that the report needs.
    """
    tables = {}
    for name, columns in COLUMNS.items():
        path = table_path(folder, name)
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            continue
        table = read_table(path)
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise UserError(
                f"{path}: no column {', '.join(missing)}; written by another version: "
                "delete the file and run again"
            )
        # Names stay text: a pair may be called "7".
        names = [column for column in ("pair", "model") if column in table.columns]
        table = table.astype(dict.fromkeys(names, str))
        if len(table):
            tables[name] = table
    return tables


def select(table: pd.DataFrame | None, **equal: str | int | bool) -> pd.DataFrame:
    """Rows where every named column has the given value; no table gives no rows."""
    if table is None:
        return pd.DataFrame()
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
