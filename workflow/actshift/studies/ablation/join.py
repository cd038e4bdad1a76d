"""Ablation tables of all pairs: rows and lanes of Test 2 -> seven tables, and the published one."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.ablation.study import COLUMNS, STUDY
from actshift.studies.ablation.tables.answers import READ
from actshift.studies.ablation.tables.pair import PairFiles, pair_tables
from actshift.studies.ablation.tables.published import published_table
from actshift.zoo.language import language

#: Row files of a pair; `fitted` stands there only with the published protocol.
PUBLISHED_TABLE = "ablation_published"
_ROWS = ("heldout", "fitted", "substitution", "mode_toggle")


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Judge the rows of all pairs; answers of pairs outside the zoo are not judged by topic.

    Raises:
        UserError: No pair has its folder.
    """

    def rows_of(pair: str, folder: Path) -> Mapping[str, list[dict[str, object]]]:
        size = context.zoo_sizes.get(pair)
        lang = None if size is None else language(size)
        return pair_tables(_read(folder), pair=pair, lang=lang, seed=context.seed)

    tables = join_rows(context.folders["ablation"], rows_of, COLUMNS, rule="ablation")
    released = [pd.read_csv(context.published / name) for name in STUDY.published]
    return {**tables, PUBLISHED_TABLE: published_table(*released)}


def _read(folder: Path) -> PairFiles:
    found = {name: folder / f"{name}.parquet" for name in _ROWS}
    losses = folder / "losses.parquet"
    return PairFiles(
        lanes=read_table(folder / "lanes.csv"),
        directions=read_table(folder / "directions.csv"),
        rows={
            name: pd.read_parquet(path, columns=list(READ))
            for name, path in found.items()
            if path.is_file()
        },
        losses=pd.read_parquet(losses) if losses.is_file() else None,
    )
