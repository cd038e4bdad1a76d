"""Tables that ask whether the size of the shift at a layer says how much preference it carries."""

from actshift.studies.localization.settings import ATTRIBUTION
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.distances import distance_rows
from actshift.studies.localization.tables.inputs import PairFiles
from actshift.studies.localization.tables.lasso import BY_CLUSTER, MODELS, fitted, lasso_rows
from actshift.studies.localization.tables.probe import probe_rows
from actshift.studies.localization.tables.stability import stability_rows
from actshift.studies.localization.tables.targets import problems_of


def attribution_tables(
    files: PairFiles, *, pair: str, seed: int
) -> dict[str, list[dict[str, object]]]:
    """Rows of `distances`, `probe`, `lasso` and `lasso_stability` of one pair of models.

    Args:
        files: What the rule `localization` left.
        pair: Name of the pair of models.
        seed: Of resampling.

    Returns:
        Table -> rows; NaN where a problem has no such number.

    Raises:
        UserError: A score or a distance is missing.
    """
    tables: dict[str, list[dict[str, object]]] = {name: [] for name in ATTRIBUTION}
    for cell in problems_of(files, seed=seed):
        fits = [fitted(cell, model) for model in MODELS]
        tables["distances"] += distance_rows(cell, pair=pair)
        tables["probe"] += probe_rows(cell, pair=pair)
        tables["lasso"] += lasso_rows(cell, fits, pair=pair)
        tables["lasso_stability"] += stability_rows(cell, fits[MODELS.index(BY_CLUSTER)], pair=pair)
    empty = {name: dict.fromkeys(COLUMNS[name], float("nan")) for name in tables}
    return {name: [empty[name] | row for row in rows] for name, rows in tables.items()}
