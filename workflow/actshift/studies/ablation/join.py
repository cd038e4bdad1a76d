"""Ablation tables of all pairs: rows and lanes of Test 2 -> seven tables, and the published one."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import join_rows
from actshift.io.tables import read_table, write_table
from actshift.studies.ablation.tables.answers import READ
from actshift.studies.ablation.tables.columns import COLUMNS, PUBLISHED_FILES, PUBLISHED_TABLE
from actshift.studies.ablation.tables.pair import PairFiles, pair_tables
from actshift.studies.ablation.tables.published import published_table
from actshift.zoo.language import language

#: Row files of a pair; `fitted` stands there only with the published protocol.
_ROWS = ("heldout", "fitted", "substitution", "mode_toggle")


def ablation_tables(
    *,
    pairs: Mapping[str, Path],
    zoo_sizes: Mapping[str, str],
    published: Path,
    seed: int,
    out: Path,
) -> list[str]:
    """Judge the pairs' rows and write their joint tables.

    Args:
        pairs: Folder of each pair, in the order wanted; a pair whose job failed has none.
        zoo_sizes: Size of the zoo's language for each pair whose tuned model is of the zoo; the
            answers of other pairs are not judged by topic.
        published: Folder of the released ablations.
        seed: Of resampling.
        out: Folder of the tables.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder.
    """

    def rows_of(pair: str, folder: Path) -> Mapping[str, list[dict[str, object]]]:
        lang = language(zoo_sizes[pair]) if pair in zoo_sizes else None
        return pair_tables(_read(folder), pair=pair, lang=lang, seed=seed)

    missing = join_rows(pairs, rows_of, COLUMNS, rule="ablation", out=out)
    released = [pd.read_csv(published / name) for name in PUBLISHED_FILES]
    write_table(published_table(*released), out / f"{PUBLISHED_TABLE}.csv")
    return missing


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
