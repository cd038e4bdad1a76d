"""Join the localization rows of all pairs, and the published numbers."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.localization.study import COLUMNS, STUDY
from actshift.studies.localization.tables.inputs import PairFiles
from actshift.studies.localization.tables.pair import pair_tables

PUBLISHED_TABLE, PAPER = "localization_published", "alignment_is_localized"


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


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `STUDY.table("localization_published").names`.

    Args:
        headline: `resources/published/headline.csv`.

    Returns:
        LASSO coefficients, the low-rank effects of table 2, peak layer and number of pairs.
    """
    rows = headline.loc[
        headline["paper"] == PAPER, list(STUDY.table("localization_published").names)
    ]
    return rows.reset_index(drop=True)
