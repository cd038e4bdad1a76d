"""Join the spectral gaps of all pairs, and their summary beside the published one (torch-free)."""

import pandas as pd

from actshift.engine.joining import JoinContext, finished_pairs
from actshift.io.tables import read_table
from actshift.studies.spectral_gap.stage import TABLE
from actshift.studies.spectral_gap.study import COLUMNS, STUDY
from actshift.studies.spectral_gap.tables import behaviour_rates, summary_table
from actshift.zoo.language import language


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the pairs' tables, and count layers beside what the models answer.

    Absent held-out answers (stage `reference_behaviour`) leave their rates empty.

    Raises:
        UserError: No pair has its table.
    """
    pairs = context.folders["spectral_gap"]
    present = finished_pairs(pairs, rule="spectral_gap", needed="a table")
    records = [
        row for folder in present.values() for row in read_table(folder / TABLE).to_dict("records")
    ]
    table = pd.DataFrame(records, columns=list(COLUMNS["spectral_gap"]))
    rates: dict[tuple[str, str], dict[str, float]] = {}
    for pair in present:
        size = context.zoo_sizes.get(pair)
        lang = None if size is None else language(size)
        for file in sorted(context.folders["reference_behaviour"][pair].glob("*.parquet")):
            rates[pair, file.stem] = behaviour_rates(pd.read_parquet(file), lang=lang)
    (published,) = (read_table(context.published / file) for file in STUDY.published)
    summary = summary_table(table, rates, published)
    return {"spectral_gap": table, "spectral_gap_summary": summary}
