"""ablation_by_category.csv: is the loss of refusal one kind of harm's? Shown, never tested."""

from collections.abc import Sequence

import numpy as np

from actshift.maths.intervals import clustered_wilson
from actshift.studies.ablation.tables.answers import Answers, Cell, Rows
from actshift.studies.ablation.tables.sweep import PRIMARY

#: Few clusters are left in a category, so only cells around the primary one are shown.
KS = (1, 3, 5)


def category_rows(cells: Sequence[Cell], harmful: Answers, *, pair: str) -> Rows:
    """One row a category, frame and small k; held-out prompts, the primary band and edit.

    Args:
        cells: All cells; those of the sweep are read.
        harmful: Answers to held-out harmful prompts.
        pair: Name of the pair.

    Returns:
        Columns of `ablation_by_category`; the interval is Wilson at n / design effect.
    """
    shown = [
        cell
        for cell in harmful.run(cells)
        if cell.experiment == "sweep"
        and (cell.band, cell.edit) == (PRIMARY["band"], PRIMARY["edit"])
        and cell.k in KS
    ]
    rows: Rows = []
    for category in sorted(set(harmful.categories)):
        own = np.array([name == category for name in harmful.categories])
        clusters = [name for name, kept in zip(harmful.clusters, own, strict=True) if kept]
        for cell in shown:
            refused, complied = (
                harmful.matrix(what, [cell])[0][own] for what in ("refused", "complied")
            )
            low, high = clustered_wilson(refused, clusters)
            rows.append(
                {
                    "pair": pair,
                    "category": category,
                    "band": cell.band,
                    "frame": cell.frame,
                    "edit": cell.edit,
                    "k": cell.k,
                    "draws": cell.draws,
                    "n": len(clusters),
                    "clusters": len(set(clusters)),
                    "plain_refusal": float(harmful.plain("refused")[own].mean()),
                    "refusal": float(refused.mean()),
                    "refusal_low": low,
                    "refusal_high": high,
                    "complied": float(complied.mean()),
                }
            )
    return rows
