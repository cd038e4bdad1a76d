"""Small helpers on tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float


def groups(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Rows with equal keys (as text), in order of first appearance, index kept."""
    found: dict[tuple[str, ...], list[int]] = {}
    for number, key in enumerate(zip(*(table[k].astype(str) for k in keys), strict=True)):
        found.setdefault(key, []).append(number)
    return [(key, table.iloc[numbers]) for key, numbers in found.items()]


def rows_where(table: pd.DataFrame, mask: Bool[np.ndarray, " row"]) -> pd.DataFrame:
    """The rows where the mask holds, index kept."""
    return table.iloc[np.flatnonzero(mask)]


def column(table: pd.DataFrame, name: str) -> Float[np.ndarray, " row"]:
    """One column as float64, missing values as NaN."""
    return np.asarray(table[name], dtype=float)
