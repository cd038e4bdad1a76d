"""distances.csv: how far tuning moved the state at the last tokens, layer by layer."""

import numpy as np

from actshift.maths.intervals import bootstrap_ends
from actshift.studies.localization.tables.targets import POSITIONS, Problems

Rows = list[dict[str, object]]


def distance_rows(cell: Problems, *, pair: str) -> Rows:
    """Mean norm of tuned minus base at every position and layer.

    Args:
        cell: Of one condition and length.
        pair: Name of the pair of models.

    Returns:
        Columns of `distances`; `growth` is the mean over that of the layer below, NaN at the first.
    """
    rows: Rows = []
    for position in POSITIONS:
        norms = cell.norms[position]
        draws = (norms.T @ cell.resamples.T) / cell.resamples.sum(axis=1)
        ends = bootstrap_ends(draws, clusters=len(set(cell.clusters)))
        means = norms.mean(axis=0)
        below = np.append(np.nan, np.where(means > 0, means, np.nan)[:-1])
        spread = norms.std(axis=0, ddof=1) if len(norms) > 1 else np.full(len(means), np.nan)
        rows += [
            {
                **cell.facts(pair),
                "position": position,
                "layer": layer,
                "norm": means[layer],
                "norm_low": ends[layer, 0],
                "norm_high": ends[layer, 1],
                "norm_sd": spread[layer],
                "growth": (means / below)[layer],
            }
            for layer in range(len(means))
        ]
    return rows
