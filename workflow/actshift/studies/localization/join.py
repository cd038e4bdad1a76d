"""Join the localization rows of all pairs, and the published numbers."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.localization.study import COLUMNS, STUDY
from actshift.studies.localization.tables.inputs import PairFiles
from actshift.studies.localization.tables.pair import pair_tables
from actshift.studies.localization.tables.published import published_table

PUBLISHED_TABLE = "localization_published"


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs.

    Raises:
        UserError: No pair has its folder.
    """
    tables = join_rows(
        context.folders["localization"],
        lambda pair, folder: pair_tables(_read(folder), pair=pair, seed=context.seed),
        COLUMNS,
        rule="localization",
    )
    (published,) = (pd.read_csv(context.published / file) for file in STUDY.published)
    return {**tables, PUBLISHED_TABLE: published_table(published)}


def _read(folder: Path) -> PairFiles:
    return PairFiles(
        pairs=read_table(folder / "pairs.csv"),
        plain=pd.read_parquet(folder / "plain.parquet"),
        patches=pd.read_parquet(folder / "patches.parquet"),
        swaps=pd.read_parquet(folder / "swaps.parquet"),
        distances=pd.read_parquet(folder / "distances.parquet"),
        bases=read_table(folder / "bases.csv"),
    )
