"""old_or_new.csv: the base's own refusal direction, the tuned one, and what is new in it."""

from collections.abc import Sequence

from actshift.studies.ablation.tables.answers import Answers, Cell, Rows
from actshift.studies.ablation.tables.compare import against_plain, refusal_columns
from actshift.studies.ablation.tables.control import standing_of


def old_or_new_rows(
    cells: Sequence[Cell], harmful: Answers, harmless: Answers, *, pair: str, seed: int
) -> Rows:
    """One row a direction (tuned, base or new), band and edit.

    Args:
        cells: All of the pair; the sweep's random frames are the controls.
        harmful: Held-out answers to harmful prompts.
        harmless: Held-out answers to harmless prompts.
        pair: Name of the pair.
        seed: Of resampling.

    Returns:
        Columns of `old_or_new`.
    """
    own = [cell for cell in harmful.run(cells) if cell.experiment == "old_or_new"]
    rows: Rows = []
    for cell, change in zip(own, against_plain(own, harmful, "refused", seed=seed), strict=True):
        rows.append(
            {
                "pair": pair,
                "direction": cell.directions,
                "band": cell.band,
                "edit": cell.edit,
                "cos_with_tuned": cell.cos_with_tuned,
                "energy_removed": cell.energy_harmful,
                **refusal_columns(change, harmful),
                **standing_of(cell, cells, harmful, harmless).columns(),
            }
        )
    return rows
