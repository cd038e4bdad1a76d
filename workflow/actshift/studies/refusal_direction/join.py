"""Refusal-direction tables of all pairs: every candidate, and the effect on held-out prompts."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import finished_pairs
from actshift.io.tables import read_table, write_table
from actshift.studies.refusal_direction.tables import CANDIDATES, EFFECT, effect_table
from actshift.zoo.language import language


def refusal_tables(
    *, pairs: Mapping[str, Path], zoo_sizes: Mapping[str, str], seed: int, out: Path
) -> list[str]:
    """Join the pairs' tables of candidates, and judge their held-out rows.

    Args:
        pairs: Folder of each pair, in the order wanted; a pair whose job failed has none.
        zoo_sizes: Size of the zoo's language for each pair whose tuned model is of the zoo.
        seed: Of resampling.
        out: Folder of `refusal_direction.csv` and `refusal_effect.csv`.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder.
    """
    present = finished_pairs(pairs, rule="refusal_direction", needed="a direction")
    candidates, effects = [], []
    for pair, folder in present.items():
        candidates += read_table(folder / "refusal_direction.csv").to_dict("records")
        lang = language(zoo_sizes[pair]) if pair in zoo_sizes else None
        rows = pd.read_parquet(folder / "rows.parquet")
        effects += effect_table(rows, pair=pair, seed=seed, lang=lang).to_dict("records")
    write_table(pd.DataFrame(candidates, columns=list(CANDIDATES)), out / "refusal_direction.csv")
    write_table(pd.DataFrame(effects, columns=list(EFFECT)), out / "refusal_effect.csv")
    return [pair for pair in pairs if pair not in present]
