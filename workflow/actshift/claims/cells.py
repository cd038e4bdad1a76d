"""From a claim's cell to a number with its interval, for each unit (pair or seed)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.claims.file import Bound, CellValue, Claim, Pool

#: (study, table name) -> rows.
Tables = Mapping[tuple[str, str], pd.DataFrame]
_POOLS = {"median": np.median, "mean": np.mean, "min": np.min, "max": np.max}


class NotMeasuredError(Exception):
    """A claim cannot be decided; the message says why.

    Attributes:
        too_small: whether the run lacks the rows or the draws, whatever its numbers are.
    """

    def __init__(self, reason: str, *, too_small: bool = False) -> None:
        """Keep both."""
        super().__init__(reason)
        self.too_small = too_small


@dataclass(frozen=True, slots=True)
class Measured:
    """A pooled value on the scale of the decision (the logarithm, for ratios)."""

    value: float
    low: float
    high: float
    p: float


def claim_table(claim: Claim, tables: Tables) -> pd.DataFrame:
    """The rows that a claim reads, of all units and cells, with the joined columns.

    Raises NotMeasuredError where a table has not been made or lacks a column.
    """
    rows = _existing(claim.table, claim, tables)
    if claim.join is not None:
        other, keys = _existing(claim.join.table, claim, tables), claim.join.on
        for name, table in ((claim.table, rows), (claim.join.table, other)):
            _need(table, keys, name)
        new = [column for column in other if column in keys or column not in rows]
        rows = rows.merge(other[new], on=keys, how="left")
    _need(rows, named_columns(claim), claim.table)
    return rows


def unit_names(claim: Claim, rows: pd.DataFrame, wanted: list[str]) -> list[str]:
    """The units of a claim: the wanted pairs first, then what else the table holds.

    Published rows of a summary are about other models and are no units: they are left out where the
    wanted pairs are known. So are rows whose unit is empty.
    """
    names = [str(name) for name in rows[claim.unit].dropna().unique()]
    if claim.unit == "pair" and wanted:
        return wanted
    return names


def measure_unit(claim: Claim, rows: pd.DataFrame, unit: str) -> tuple[Measured, str]:
    """Pool the primary cell of one unit (pair or seed) and check what the claim requires.

    Returns the measured value and why it holds by construction ("" where it does not). An interval
    of a comparison of two cells is [low_a - high_b, high_a - low_b], which is conservative. Raises
    NotMeasuredError where the cell is empty or a requirement is not met.
    """
    of_unit = rows.loc[rows[claim.unit].astype(str) == unit]
    cell = _cell(of_unit, claim.cell, claim)
    _check(claim, cell, "")
    measured = _inversion(claim, cell) if claim.kind == "inversion" else _pooled(claim, cell)
    if claim.versus is not None:
        other = _cell(of_unit, {**claim.cell, **claim.versus}, claim)
        _check(claim, other, f" in {describe(claim.versus)}")
        base = _pooled(claim, other)
        measured = Measured(
            measured.value - base.value,
            measured.low - base.high,
            measured.high - base.low,
            measured.p,
        )
    rule = claim.by_construction
    return measured, rule.why if rule is not None and _met(rule, cell) else ""


def describe(cell: Mapping[str, CellValue]) -> str:
    """A cell as text: `matrix template, n 50`."""
    return ", ".join(f"{c} {'none' if value is None else value}" for c, value in cell.items())


def named_columns(claim: Claim) -> list[str]:
    """Every column that a claim names."""
    rules = [*claim.requires, *([claim.by_construction] if claim.by_construction else [])]
    named = [claim.unit, *claim.cell, *(claim.versus or {}), claim.value, *claim.per, claim.p]
    named += [*(claim.interval or ()), *(c for r in rules for c in (r.column, *r.per, r.minus))]
    return [column for column in named if column is not None]


def per_text(per: list[str]) -> str:
    """A divisor as text: "", ` / d` or ` / min(d, n)`."""
    if len(per) > 1:
        return f" / min({', '.join(per)})"
    return f" / {per[0]}" if per else ""


def _existing(name: str, claim: Claim, tables: Tables) -> pd.DataFrame:
    table = tables.get((claim.study, name))
    if table is None:
        raise NotMeasuredError(f"table {name}.csv has not been made", too_small=True)
    return table


def _need(table: pd.DataFrame, columns: list[str], name: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise NotMeasuredError(f"table {name}.csv has no column '{missing[0]}'")


def _cell(rows: pd.DataFrame, cell: Mapping[str, CellValue], claim: Claim) -> pd.DataFrame:
    keep = np.ones(len(rows), dtype=bool)
    for column, value in cell.items():
        keep &= _equal(rows[column], value)
    if not keep.any():
        reason = f"table {claim.table}.csv has no row with {describe(cell)}"
        raise NotMeasuredError(reason, too_small=True)
    return rows.loc[keep]


def _equal(column: pd.Series, value: CellValue) -> np.ndarray:
    """Which entries equal a cell's value; numbers up to rounding in the CSV."""
    if value is None:
        return np.asarray(column.isna())
    if value == "max" and pd.api.types.is_numeric_dtype(column):
        return np.asarray(column == column.max())
    if isinstance(value, bool | str):
        return np.asarray(column.astype(str) == str(value))
    return np.isclose(pd.to_numeric(column, errors="coerce").to_numpy(dtype=float), value)


def _check(claim: Claim, cell: pd.DataFrame, where: str) -> None:
    for rule in claim.requires:
        if not _met(rule, cell):
            value = _bound_value(rule, cell)
            reason = f"{rule.why} ({_bound_text(rule)}, found {value:.3g}{where})"
            raise NotMeasuredError(reason, too_small=rule.larger_run)


def _met(rule: Bound, cell: pd.DataFrame) -> bool:
    value = _bound_value(rule, cell)
    if rule.at_least is not None:
        return value >= rule.at_least
    return rule.at_most is not None and value <= rule.at_most


def _bound_value(rule: Bound, cell: pd.DataFrame) -> float:
    values = _numbers(cell, rule.column)
    if rule.minus is not None:
        values = np.abs(values - _numbers(cell, rule.minus))
    return _pool(_divided(values, cell, rule.per), rule.over)


def _bound_text(rule: Bound) -> str:
    text = f"{rule.over} {rule.column}"
    text += f" - {rule.minus}" if rule.minus else ""
    text += per_text(rule.per)
    least = rule.at_least is not None
    bound = rule.at_least if least else rule.at_most
    return f"{text} at {'least' if least else 'most'} {bound:g}"


def _pooled(claim: Claim, cell: pd.DataFrame) -> Measured:
    columns = [claim.value, *(claim.interval or ())]
    pooled = [_pool(_scaled(claim, cell, column), claim.over) for column in columns]
    value, low, high = pooled if claim.interval else (pooled[0], np.nan, np.nan)
    if not np.isfinite(value):
        raise NotMeasuredError(f"column '{claim.value}' has no number in the cell")
    # Of several rows the weakest evidence counts.
    p = _pool(_numbers(cell, claim.p), "max") if claim.p else np.nan
    return Measured(float(value), float(low), float(high), float(p))


def _inversion(claim: Claim, cell: pd.DataFrame) -> Measured:
    """The row that speaks most clearly for the claim; the table corrects for their number.

    The upper end is that of all rows: the claim fails only where no row can reach the bound.
    """
    value = _scaled(claim, cell, claim.value)
    low, high = (_scaled(claim, cell, column) for column in claim.interval or (claim.value,) * 2)
    if not np.isfinite(value).any():
        raise NotMeasuredError(f"column '{claim.value}' has no number in the cell")
    # Among rows beyond the bound the one with the highest lower end, else among all rows.
    beyond = value > (claim.above if claim.above is not None else np.inf)
    lows = np.where(beyond if beyond.any() else np.isfinite(value), low, -np.inf)
    best = int(np.argmax(np.nan_to_num(lows, nan=-np.inf)))
    p = float(_numbers(cell, claim.p)[best]) if claim.p else np.nan
    return Measured(float(value[best]), float(low[best]), _pool(high, "max"), p)


def _scaled(claim: Claim, cell: pd.DataFrame, column: str) -> Float[np.ndarray, " row"]:
    """A column divided by `per`, on the scale of the decision."""
    values = _divided(_numbers(cell, column), cell, claim.per)
    if claim.is_ratio and not claim.logged:
        # A ratio of 0 has no logarithm: it is left out, as an empty cell would be.
        values = np.log(np.where(values > 0, values, np.nan))
    return values


def _divided(
    values: Float[np.ndarray, " row"], cell: pd.DataFrame, per: list[str]
) -> Float[np.ndarray, " row"]:
    """Values over the smallest of the named columns, row by row."""
    if not per:
        return values
    return values / np.min([_numbers(cell, column) for column in per], axis=0)


def _numbers(cell: pd.DataFrame, column: str) -> Float[np.ndarray, " row"]:
    return pd.to_numeric(cell[column], errors="coerce").to_numpy(dtype=np.float64)


def _pool(values: Float[np.ndarray, " row"], pool: Pool) -> float:
    finite = values[np.isfinite(values)]
    return float(_POOLS[pool](finite)) if len(finite) else float("nan")
