"""All ablation tables of one pair."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from actshift.studies.ablation.tables.answers import Answers, Cell, Rows, answers_of, cells_of
from actshift.studies.ablation.tables.directions import (
    direction_rows,
    old_or_new_rows,
    self_cosines,
)
from actshift.studies.ablation.tables.ordering import ordering_rows
from actshift.studies.ablation.tables.side_effects import losses_by_lane, side_effect_rows
from actshift.studies.ablation.tables.substitution import MODELS, substitution_rows
from actshift.studies.ablation.tables.sweep import add_inflation, category_rows, sweep_rows
from actshift.zoo.language import Language


@dataclass(frozen=True, eq=False)
class PairFiles:
    """What the rule `ablation` leaves of one pair.

    Attributes:
        lanes: `lanes.csv`.
        directions: `directions.csv`.
        rows: Name (heldout, fitted, substitution, mode_toggle) -> rows of the intervene stage.
        losses: `losses.parquet`; None where no plain text was read.
    """

    lanes: pd.DataFrame
    directions: pd.DataFrame
    rows: Mapping[str, pd.DataFrame]
    losses: pd.DataFrame | None = None


def pair_tables(
    files: PairFiles, *, pair: str, lang: Language | None, seed: int
) -> dict[str, Rows]:
    """Every table's rows of one pair.

    Args:
        files: Of the pair.
        pair: Its name.
        lang: The zoo's language, to judge topics; None for other models.
        seed: Of resampling.

    Returns:
        Table -> rows.
    """
    cells = cells_of(files.lanes)
    answers = {name: answers_of(rows, lang) for name, rows in files.rows.items()}
    harmful, harmless = (answers["heldout"][condition] for condition in ("harmful", "harmless"))
    cosines = self_cosines(files.directions)
    shared = {"pair": pair, "seed": seed}
    return {
        "ablation_sweep": _sweep(cells, answers, pair=pair, seed=seed),
        "ablation_by_category": category_rows(cells, harmful, pair=pair),
        "direction_ablation": direction_rows(cells, harmful, harmless, cosines, **shared),
        "ordering": ordering_rows(cells, harmful, harmless, cosines, **shared),
        "substitution": [
            row
            for lane, donor in _patched(answers).items()
            for row in substitution_rows(
                cells,
                lane,
                answers[lane]["harmful"],
                answers[lane]["harmless"],
                donor,
                pair=pair,
                seed=seed,
            )
        ],
        "old_or_new": old_or_new_rows(cells, harmful, harmless, **shared),
        "side_effects": _side_effects(cells, answers, files.losses, pair=pair, seed=seed),
    }


def _sweep(
    cells: list[Cell], answers: Mapping[str, Mapping[str, Answers]], *, pair: str, seed: int
) -> Rows:
    swept = [cell for cell in cells if cell.experiment == "sweep"]
    rows: Rows = []
    for protocol in ("heldout", "fitted"):
        if protocol not in answers:
            continue
        harmful, harmless = (answers[protocol][name] for name in ("harmful", "harmless"))
        of_protocol = sweep_rows(swept, harmful, harmless, pair=pair, protocol=protocol, seed=seed)
        if protocol == "fitted":
            add_inflation(of_protocol, swept, harmful, answers["heldout"]["harmful"], seed=seed)
        rows += of_protocol
    return rows


def _patched(answers: Mapping[str, Mapping[str, Answers]]) -> dict[str, Answers]:
    """The patch experiments that were run, with the answers that hold their donor's plain lane."""
    plain = {"tuned": "heldout", "base": "mode_toggle"}
    return {
        lane: answers[plain[donor]]["harmful"]
        for lane, (_, donor) in MODELS.items()
        if lane in answers
    }


def _side_effects(
    cells: list[Cell],
    answers: Mapping[str, Mapping[str, Answers]],
    losses: pd.DataFrame | None,
    *,
    pair: str,
    seed: int,
) -> Rows:
    by_lane = {} if losses is None else losses_by_lane(losses)
    rows: Rows = []
    for name in ("heldout", *MODELS):
        if name in answers:
            rows += side_effect_rows(
                cells, answers[name]["harmless"], by_lane, pair=pair, seed=seed
            )
    return rows
