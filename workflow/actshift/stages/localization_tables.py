"""Localization tables of all pairs: rows of study C -> twelve tables, and the published numbers."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.io.tables import read_table, write_table
from actshift.stages.joining import finished_pairs
from actshift.studies.localization_tables.columns import COLUMNS, PUBLISHED_TABLE
from actshift.studies.localization_tables.inputs import PairFiles
from actshift.studies.localization_tables.pair import pair_tables
from actshift.studies.localization_tables.published import published_table


def localization_tables(
    *, pairs: Mapping[str, Path], published: Path, seed: int, out: Path
) -> list[str]:
    """Write the pairs' joint tables.

    Args:
        pairs: Folder of each pair, in the order wanted; a pair whose job failed has none.
        published: CSV of published headline numbers.
        seed: Of resampling.
        out: Folder of the tables.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder.
    """
    present = finished_pairs(pairs, rule="localization", needed="its rows")
    joint: dict[str, list[dict[str, object]]] = {name: [] for name in COLUMNS}
    for pair, folder in present.items():
        found = pair_tables(_read(folder), pair=pair, seed=seed)
        for name, rows in found.items():
            joint[name] += rows
        told = ", ".join(f"{len(rows)} rows of {name}" for name, rows in found.items())
        print(f"localization {pair}: {told}")
    for name, columns in COLUMNS.items():
        write_table(pd.DataFrame(joint[name], columns=list(columns)), out / f"{name}.csv")
    write_table(published_table(pd.read_csv(published)), out / f"{PUBLISHED_TABLE}.csv")
    missing = [pair for pair in pairs if pair not in present]
    if missing:
        print(f"localization: left out, because the job failed: {', '.join(missing)}")
    return missing


def _read(folder: Path) -> PairFiles:
    return PairFiles(
        pairs=read_table(folder / "pairs.csv"),
        plain=pd.read_parquet(folder / "plain.parquet"),
        patches=pd.read_parquet(folder / "patches.parquet"),
        swaps=pd.read_parquet(folder / "swaps.parquet"),
        distances=pd.read_parquet(folder / "distances.parquet"),
        bases=read_table(folder / "bases.csv"),
    )
