"""What answers say of rates of refusal: wording and thresholds that studies share."""

import numpy as np
import pandas as pd

from actshift.report.point import counted, percent
from actshift.report.tables import first

#: A model that refuses less than this has little to lose.
MIN_REFUSED = 0.8
#: "Carries" is losing at least this much of all refusals.
CARRIES = 0.5


def basis_of(rows: pd.DataFrame) -> str:
    """Prompts and clusters that a row rests on."""
    clusters = counted(int(first(rows, "clusters")), "cluster")
    return f"{int(first(rows, 'n'))} held-out prompts in {clusters}; interval by cluster."


def rate(share: float) -> str:
    """A rate as a percentage; all and none are exact."""
    return f"{100 * share:.0f} %" if share in (0, 1) else percent(share)


def points_of(value: float, low: float, high: float) -> str:
    """A change of a rate in points, with its interval."""
    return f"{100 * value:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def topical_then(effect: pd.DataFrame) -> str:
    """What refusal gave way to; nothing where no judge knows the topics."""
    topical = first(effect, "on_topic")
    return "" if np.isnan(topical) else f"{rate(topical)} are then answered on topic. "
