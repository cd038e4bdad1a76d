"""Spectral-gap tables of all pairs, and their summary beside the published one (torch-free)."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import finished_pairs
from actshift.io.tables import read_table, write_table
from actshift.studies.spectral_gap.columns import GAP
from actshift.studies.spectral_gap.stage import TABLE
from actshift.studies.spectral_gap.tables import behaviour_rates, summary_table
from actshift.zoo.language import language

#: File of `resources/published`.
PUBLISHED = "spectral_gap_llama_per_layer.csv"


def spectral_gap_tables(
    *,
    gaps: Mapping[str, Path],
    behaviours: Mapping[str, Path],
    zoo_sizes: Mapping[str, str],
    published: Path,
    out: Path,
) -> list[str]:
    """Join the pairs' tables, and count layers beside what the models answer.

    Args:
        gaps: Folder of each pair's table, in the order wanted; a pair whose job failed has none.
        behaviours: Folder of each pair's held-out answers; absent ones leave their rates empty.
        zoo_sizes: Size of the zoo's language for each pair whose tuned model is of the zoo.
        published: Folder of the published CSV files.
        out: Folder of `spectral_gap.csv` and `spectral_gap_summary.csv`.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its table.
    """
    present = finished_pairs(gaps, rule="spectral_gap", needed="a table")
    records = [
        row for folder in present.values() for row in read_table(folder / TABLE).to_dict("records")
    ]
    table = pd.DataFrame(records, columns=list(GAP))
    rates: dict[tuple[str, str], dict[str, float]] = {}
    for pair in present:
        lang = language(zoo_sizes[pair]) if pair in zoo_sizes else None
        for file in sorted(behaviours[pair].glob("*.parquet")):
            rates[pair, file.stem] = behaviour_rates(pd.read_parquet(file), lang=lang)
    summary = summary_table(table, rates, read_table(published / PUBLISHED))
    write_table(table, out / "spectral_gap.csv")
    write_table(summary, out / "spectral_gap_summary.csv")
    return [pair for pair in gaps if pair not in present]
