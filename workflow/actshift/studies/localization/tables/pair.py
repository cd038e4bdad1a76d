"""All localization tables of one pair of models."""

import pandas as pd

from actshift.studies.localization.settings import ATTRIBUTION
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.controls import control_rows
from actshift.studies.localization.tables.distances import distance_rows
from actshift.studies.localization.tables.effects import Rows, Sample
from actshift.studies.localization.tables.inputs import PairFiles, cells_of
from actshift.studies.localization.tables.interpolation import interpolation_rows
from actshift.studies.localization.tables.lasso import BY_CLUSTER, MODELS, fitted, lasso_rows
from actshift.studies.localization.tables.low_rank import low_rank_rows
from actshift.studies.localization.tables.patching import patching_rows, source_rows, swap_rows
from actshift.studies.localization.tables.positions import position_rows
from actshift.studies.localization.tables.probe import probe_rows
from actshift.studies.localization.tables.stability import stability_rows
from actshift.studies.localization.tables.summary import summary_rows
from actshift.studies.localization.tables.targets import problems_of


def pair_tables(files: PairFiles, *, pair: str, seed: int) -> dict[str, Rows]:
    """Every table's rows of one pair of models.

    Args:
        files: Of the pair.
        pair: Its name.
        seed: Of resampling.

    Returns:
        Table -> rows.

    Raises:
        UserError: A score or a distance is missing.
    """
    patched = patch_tables(files, pair=pair, seed=seed)
    return patched | attribution_tables(files, pair=pair, seed=seed)


def patch_tables(files: PairFiles, *, pair: str, seed: int) -> dict[str, Rows]:
    """Rows of the tables that come of patches and block swaps, of one pair of models.

    Args:
        files: Of the pair.
        pair: Its name.
        seed: Of resampling.

    Returns:
        Table -> rows.

    Raises:
        UserError: A model, lane or unit is not scored on every pair.
    """
    tables: dict[str, Rows] = {name: [] for name in COLUMNS if name not in ATTRIBUTION}
    for cell in cells_of(files):
        for name, rows in _of_cell(Sample.of(cell, pair=pair, seed=seed), files.bases).items():
            tables[name] += rows
    return tables


def _of_cell(sample: Sample, bases: pd.DataFrame) -> dict[str, Rows]:
    return {
        "patching": patching_rows(sample),
        "controls": control_rows(sample),
        "interpolation": interpolation_rows(sample),
        "sources": source_rows(sample),
        "low_rank": low_rank_rows(sample, bases),
        "positions": position_rows(sample),
        "block_swap": swap_rows(sample),
        "summary": summary_rows(sample),
    }


def attribution_tables(files: PairFiles, *, pair: str, seed: int) -> dict[str, Rows]:
    """Rows of the tables that ask whether the size of a shift says how much preference it carries.

    Args:
        files: What the rule `localization` left.
        pair: Name of the pair of models.
        seed: Of resampling.

    Returns:
        Table -> rows; NaN where a problem has no such number.

    Raises:
        UserError: A score or a distance is missing.
    """
    tables: dict[str, Rows] = {name: [] for name in ATTRIBUTION}
    for cell in problems_of(files, seed=seed):
        fits = [fitted(cell, model) for model in MODELS]
        tables["distances"] += distance_rows(cell, pair=pair)
        tables["probe"] += probe_rows(cell, pair=pair)
        tables["lasso"] += lasso_rows(cell, fits, pair=pair)
        tables["lasso_stability"] += stability_rows(cell, fits[MODELS.index(BY_CLUSTER)], pair=pair)
    empty = {name: dict.fromkeys(COLUMNS[name], float("nan")) for name in tables}
    return {name: [empty[name] | row for row in rows] for name, rows in tables.items()}
