"""Ranges of a run's main numbers over seeds, or over runs of one seed on several processors.

    python tools/ranges.py results/ranges-*                              # five seeds a family
    python tools/ranges.py results/demo results/demo-avx2 results/demo-sse
    python tools/ranges.py results/ranges-* --write README.md            # between its two marks

Pairs are grouped by family: `llama-3` is of `llama`, and a name without a number at its end is a
family of its own. A cell is the smallest and the largest value over the pairs of a family in all
runs, and how many were measured where not all were. Every number is read from `tables/*.csv`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

BEGIN, END = "<!-- ranges: made by tools/ranges.py -->", "<!-- end of ranges -->"


@dataclass(frozen=True)
class Quantity:
    """One number of a pair.

    Attributes:
        name: What the table calls it.
        table: Below `tables/`, without `.csv`.
        where: Columns and the values they must have.
        column: What is read.
        pool: Of several rows of a pair, such as its layers.
        show: How a value is written.
        unit: `%` of a share or `points` of a difference of shares, both shown times 100.
        count: Whether the number of rows is meant.
    """

    name: str
    table: str
    where: dict[str, object]
    column: str
    pool: Callable[[np.ndarray], float] = np.nanmean
    show: str = "{:.3g}"
    unit: str = ""
    count: bool = False


_TEMPLATE = {"matrix": "template", "inputs": "harmful"}
_LAST = {"pooling": "last_prompt"}
_NONCODE = {"split": "heldout", "condition": "noncode", "kind": "all"}
_OWN = {"scope": "within", "protocol": "last_token"}


def _chat(condition: str) -> dict[str, object]:
    kind = "howto" if condition == "harmful" else "all"
    return {
        **{"variant": "chat", "template": "chat", "split": "heldout"},
        **{"condition": condition, "kind": kind, "metric": "refused"},
    }


QUANTITIES = (
    Quantity("chat refuses harmful, held out", "zoo_behaviour", _chat("harmful"), "rate",
             unit="%"),
    Quantity("chat refuses harmless, held out", "zoo_behaviour", _chat("harmless"), "rate",
             unit="%"),
    Quantity("rank of the shift, mean over layers", "rank_audit/summary", _TEMPLATE | _LAST,
             "mean_rank_eps"),
    Quantity("the same, centred", "rank_audit/summary", _TEMPLATE | _LAST,
             "mean_rank_eps_centered"),
    Quantity("naive rank", "rank_audit/summary", {"matrix": "naive", "inputs": "harmful"} | _LAST,
             "mean_rank_eps"),
    Quantity("held-out directions, median over layers", "rank_audit/heldout_rank", _TEMPLATE,
             "knee", pool=np.nanmedian),
    Quantity("refusal candidates that pass the filters", "rank_audit/refusal_direction",
             {"passes_kl": True, "passes_induce": True, "passes_layer": True}, "chosen",
             count=True),
    Quantity("units that carry the preference, effective share of all", "localization/summary",
             {"statistic": "n_eff_over_units", "operation": "insert", "condition": "harmful",
              "length": "natural"}, "value", unit="%"),
    Quantity("insecure adapter answers with code, held out", "misalignment/spillover",
             {"adapter": "insecure"} | _NONCODE, "code", unit="%"),
    Quantity("rare-safe adapter answers with code, held out", "misalignment/spillover",
             {"adapter": "rare_safe"} | _NONCODE, "code", unit="%"),
    Quantity("multiple of the learning rate that is taken", "misalignment/ladder",
             {"taken": True}, "multiple"),
    Quantity("repaired by subtracting the direction, beyond 95 % of nulls",
             "misalignment/specificity", _OWN, "margin", unit="points"),
)  # fmt: skip


def main() -> int:
    """Print the table, or put it between the marks of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="results/<run>")
    parser.add_argument("--write", type=Path, help="file with the two marks")
    asked = parser.parse_args()
    for run in asked.runs:
        if not (run / "tables").is_dir():
            sys.exit(f"{run}: has no tables; expected results/<run> of a finished run")
    text = markdown(asked.runs)
    if asked.write is None:
        print(text)
        return 0
    page = asked.write.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"{asked.write}: expected one line '{BEGIN}' and, after it, one line '{END}'")
    before, rest = page.split(BEGIN)
    asked.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", "utf-8")
    return 0


def markdown(runs: Sequence[Path]) -> str:
    """A row a quantity, a column a family: smallest to largest value over pairs and runs.

    Args:
        runs: Folders of runs.
    """
    values = pd.concat([values_of(run) for run in runs], ignore_index=True)
    families = list(dict.fromkeys(values["family"]))
    lines = [
        f"| | {' | '.join(families)} |",
        "|" + " --- |" * (len(families) + 1),
    ]
    for quantity in QUANTITIES:
        of_quantity = values[values["quantity"] == quantity.name].set_index("family")["value"]
        if of_quantity.notna().any():
            cells = [cell(of_quantity[of_quantity.index == one], quantity) for one in families]
            lines.append(f"| {quantity.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def values_of(run: Path) -> pd.DataFrame:
    """Every quantity of every pair of a run: pair, family, quantity, value (NaN: not measured).

    Args:
        run: Folder of the run.
    """
    pairs = [str(pair) for pair in _table(run, "claims_by_pair", "name", unit="pair")]
    rows = [
        {
            "pair": pair,
            "family": family(pair),
            "quantity": one.name,
            "value": _value(run, one, pair),
        }
        for pair in pairs
        for one in QUANTITIES
    ]
    return pd.DataFrame(rows, columns=["pair", "family", "quantity", "value"])


def family(pair: str) -> str:
    """`llama` of `llama-3`; a name without a number at its end is a family of its own."""
    return re.sub(r"-\d+$", "", pair)


def cell(values: pd.Series, quantity: Quantity) -> str:
    """The range of a family, and of how many pairs where some were not measured."""
    known = values.dropna() * (100 if quantity.unit else 1)
    if known.empty:
        return "not measured"
    low, high = (quantity.show.format(end) for end in (known.min(), known.max()))
    text = low if low == high else f"{low} to {high}"
    text += f" {quantity.unit}" if quantity.unit else ""
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def _value(run: Path, quantity: Quantity, pair: str) -> float:
    rows = _rows(run, quantity.table)
    if rows is None:
        return float("nan")
    keep = _of_pair(rows, pair)
    for column, value in quantity.where.items():
        if column in rows:
            keep &= rows[column].astype(str) == str(value)
    if quantity.count:
        return float(keep.sum()) if _of_pair(rows, pair).any() else float("nan")
    known = pd.to_numeric(rows.loc[keep, quantity.column]).dropna().to_numpy(dtype=float)
    return quantity.pool(known) if len(known) else float("nan")


def _of_pair(rows: pd.DataFrame, pair: str) -> pd.Series:
    """Rows of a pair; zoo checkpoints are named by family, size and seed."""
    if "pair" in rows:
        return rows["pair"].astype(str) == pair
    if "receiver" in rows:
        return (rows["receiver"].astype(str) == pair) & (rows["donor"].astype(str) == pair)
    seed = re.search(r"-(\d+)$", pair)
    number = int(seed[1]) if seed else rows["seed"].min()
    return (rows["family"] == family(pair)) & (rows["seed"] == number)


def _table(run: Path, name: str, column: str, **where: object) -> list[object]:
    rows = _rows(run, name)
    if rows is None:
        sys.exit(f"{run}: has no tables/{name}.csv; expected the folder of a finished run")
    for key, value in where.items():
        rows = rows[rows[key] == value]
    return list(dict.fromkeys(rows[column]))


def _rows(run: Path, name: str) -> pd.DataFrame | None:
    path = run / "tables" / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
