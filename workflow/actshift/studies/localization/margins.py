"""preference_margins.csv: margins of both models, whether the gate was met or not.

Torch-free: read from what the rule `localization` writes before it looks at its gate.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.io.missed import was_passed_on
from actshift.io.tables import read_table
from actshift.studies.localization.gate import margin_gate
from actshift.studies.localization.study import STUDY


def collect_margins(files: Mapping[str, Path], *, seed: int) -> pd.DataFrame:
    """Mean margins of every pair's two models, condition by condition.

    margin = log p(chosen | prompt) - log p(rejected | prompt), nats summed over tokens.

    Args:
        files: CSV of margins of each pair of models, one row a preference pair; empty for a pair
            whose models missed their gates.
        seed: Of the resamples.

    Returns:
        Table `preference_margins`; the gap is tuned minus base with its cluster interval, the one
        that the gate judges.

    Raises:
        UserError: A file is missing or is not a CSV.
    """
    rows = [
        {
            "pair": pair,
            "condition": str(condition),
            "n": gate.n,
            "clusters": gate.clusters,
            "margin_base": margins["margin_base"].mean(),
            "margin_tuned": margins["margin_tuned"].mean(),
            "gap": gate.mean,
            "gap_low": gate.low,
            "gap_high": gate.high,
        }
        for pair, path in files.items()
        if not was_passed_on(path)
        for condition, margins in read_table(path).groupby("condition", sort=False)
        for gate in [
            margin_gate(
                margins["gap"].to_numpy(dtype=float),
                margins["condition"].astype(str).tolist(),
                margins["cluster"].astype(str).tolist(),
                seed=seed,
            )
        ]
    ]
    return pd.DataFrame(rows, columns=list(STUDY.table("preference_margins").names))
