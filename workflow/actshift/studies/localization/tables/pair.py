"""All localization tables of one pair of models."""

import pandas as pd

from actshift.studies.localization.settings import ATTRIBUTION
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.attribution import attribution_tables
from actshift.studies.localization.tables.block_swap import swap_rows
from actshift.studies.localization.tables.controls import control_rows
from actshift.studies.localization.tables.effects import Rows, Sample
from actshift.studies.localization.tables.inputs import PairFiles, cells_of
from actshift.studies.localization.tables.interpolation import interpolation_rows
from actshift.studies.localization.tables.low_rank import low_rank_rows
from actshift.studies.localization.tables.patching import patching_rows, source_rows
from actshift.studies.localization.tables.positions import position_rows
from actshift.studies.localization.tables.summary import summary_rows


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
    found = patch_tables(files, pair=pair, seed=seed)
    return found | attribution_tables(files, pair=pair, seed=seed)


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
    found: dict[str, Rows] = {name: [] for name in COLUMNS if name not in ATTRIBUTION}
    for cell in cells_of(files):
        for name, rows in _of_cell(Sample.of(cell, pair=pair, seed=seed), files.bases).items():
            found[name] += rows
    return found


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
