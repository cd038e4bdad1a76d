"""The one coefficient at which specificity is judged: fixed on questions of split select."""

from collections.abc import Sequence

import numpy as np

from actshift.studies.misalignment.choose import half_of_best, mean_gain
from actshift.studies.misalignment.tables.groups import Group
from actshift.studies.misalignment.tables.inputs import Lanes
from actshift.vocab import NONCODE

SELECT = "select"


def chosen(lanes: Lanes, edits: Sequence[Group]) -> Group | None:
    """The edit of the chosen coefficient, by gain in repaired answers on select questions.

    Args:
        lanes: Of one pair.
        edits: One direction at every coefficient.

    Returns:
        None where no edit was asked a select question.
    """
    by_coeff = {float(str(one.facts["coeff"])): one for one in edits}
    gains = {coeff: select_gain(lanes, one) for coeff, one in by_coeff.items()}
    coeff = half_of_best(gains)
    return None if coeff is None else by_coeff[coeff]


def select_gain(lanes: Lanes, group: Group) -> float:
    """Mean change of repaired answers on non-code questions of split select; NaN without any."""
    columns = lanes.all_asked(
        np.concatenate([group.rows, group.plain]), lanes.asked(condition=NONCODE, split=SELECT)
    )
    if not len(columns):
        return float("nan")
    edited, plain = (lanes.values("repaired", rows, columns) for rows in (group.rows, group.plain))
    return mean_gain(edited, plain)
