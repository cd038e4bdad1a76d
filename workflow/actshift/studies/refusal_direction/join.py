"""Join the refusal directions of all pairs: every candidate, and the effect held out."""

import pandas as pd

from actshift.engine.joining import JoinContext, finished_pairs
from actshift.io.tables import read_table
from actshift.studies.refusal_direction.study import COLUMNS
from actshift.studies.refusal_direction.tables import effect_table
from actshift.zoo.language import language


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the pairs' candidates, and judge their held-out rows.

    Raises:
        UserError: No pair has its folder.
    """
    pairs = context.folders["refusal_direction"]
    present = finished_pairs(pairs, rule="refusal_direction", needed="a direction")
    rows: dict[str, list[dict]] = {name: [] for name in COLUMNS}
    for pair, folder in present.items():
        rows["refusal_direction"] += read_table(folder / "refusal_direction.csv").to_dict("records")
        size = context.zoo_sizes.get(pair)
        answers = pd.read_parquet(folder / "rows.parquet")
        lang = None if size is None else language(size)
        effects = effect_table(answers, pair=pair, seed=context.seed, lang=lang)
        rows["refusal_effect"] += effects.to_dict("records")
    return {name: pd.DataFrame(rows[name], columns=list(of)) for name, of in COLUMNS.items()}
