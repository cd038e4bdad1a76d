"""Localization tables of all pairs: rows of study C -> twelve tables, and the published numbers."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import join_rows
from actshift.io.tables import read_table, write_table
from actshift.studies.localization.tables.columns import COLUMNS, PUBLISHED_TABLE
from actshift.studies.localization.tables.inputs import PairFiles
from actshift.studies.localization.tables.pair import pair_tables
from actshift.studies.localization.tables.published import published_table


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
    missing = join_rows(
        pairs,
        lambda pair, folder: pair_tables(_read(folder), pair=pair, seed=seed),
        COLUMNS,
        rule="localization",
        out=out,
    )
    write_table(published_table(pd.read_csv(published)), out / f"{PUBLISHED_TABLE}.csv")
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
