"""All localization tables: each pair's rows, joined, and the published numbers."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.localization.study import COLUMNS, STUDY
from actshift.studies.localization.tables.distances import distance_rows, probe_rows, problems_of
from actshift.studies.localization.tables.effects import Sample
from actshift.studies.localization.tables.inputs import PairFiles, Rows, cells_of
from actshift.studies.localization.tables.lasso import (
    BY_CLUSTER,
    MODELS,
    fitted,
    lasso_rows,
    stability_rows,
)
from actshift.studies.localization.tables.patches import (
    control_rows,
    interpolation_rows,
    low_rank_rows,
    patching_rows,
    source_rows,
    swap_rows,
)
from actshift.studies.localization.tables.summary import position_rows, summary_rows

PAPER = "alignment_is_localized"


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs.

    Raises:
        UserError: No pair has its folder, or a score or distance of one is missing.
    """

    def rows_of(pair: str, folder: Path) -> dict[str, Rows]:
        tables = {name: read_table(folder / f"{name}.csv") for name in ("pairs", "bases")}
        parts = ("plain", "patches", "swaps", "distances")
        tables |= {name: pd.read_parquet(folder / f"{name}.parquet") for name in parts}
        files = PairFiles(**tables)
        return patch_tables(files, pair=pair, seed=context.seed) | attribution_tables(
            files, pair=pair, seed=context.seed
        )

    folders = context.folders["localization"]
    tables = join_rows(folders, rows_of, COLUMNS, rule="localization")
    (published,) = (pd.read_csv(context.published / file) for file in STUDY.published)
    return {**tables, "localization_published": published_table(published)}


def patch_tables(files: PairFiles, *, pair: str, seed: int) -> dict[str, Rows]:
    """Rows of the tables that come of patches and block swaps, of one pair of models.

    Raises:
        UserError: A model, lane or unit is not scored on every pair.
    """
    tables: dict[str, Rows] = {}
    for cell in cells_of(files):
        sample = Sample.of(cell, pair=pair, seed=seed)
        of_cell = {
            "patching": patching_rows(sample),
            "controls": control_rows(sample),
            "interpolation": interpolation_rows(sample),
            "sources": source_rows(sample),
            "low_rank": low_rank_rows(sample, files.bases),
            "positions": position_rows(sample),
            "block_swap": swap_rows(sample),
            "summary": summary_rows(sample),
        }
        for name, rows in of_cell.items():
            tables.setdefault(name, []).extend(rows)
    return tables


def attribution_tables(files: PairFiles, *, pair: str, seed: int) -> dict[str, Rows]:
    """Rows of the tables that ask whether the size of a shift says how much preference it carries.

    NaN stands where a problem has no such number.

    Raises:
        UserError: A score or a distance is missing.
    """
    tables: dict[str, Rows] = {}
    for cell in problems_of(files, seed=seed):
        fits = [fitted(cell, model) for model in MODELS]
        of_cell = {
            "distances": distance_rows(cell),
            "probe": probe_rows(cell),
            "lasso": lasso_rows(cell, fits),
            "lasso_stability": stability_rows(cell, fits[MODELS.index(BY_CLUSTER)]),
        }
        for name, rows in of_cell.items():
            empty = dict.fromkeys(COLUMNS[name], float("nan"))
            tables.setdefault(name, []).extend({**empty, "pair": pair, **row} for row in rows)
    return tables


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `STUDY.table("localization_published").names`.

    Returns:
        LASSO coefficients, the low-rank effects of table 2, peak layer and number of pairs.
    """
    rows = headline.loc[
        headline["paper"] == PAPER, list(STUDY.table("localization_published").names)
    ]
    return rows.reset_index(drop=True)
