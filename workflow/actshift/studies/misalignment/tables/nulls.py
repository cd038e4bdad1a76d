"""An effect held against the draws of several nulls, on the same resamples of the clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

#: Share of a null's draws that an effect must lie above.
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Null:
    """The draws of one null: gains, and their 95th percentile on each resample.

    Attributes:
        name: Of the control.
        gains: Gain of each draw.
        high: 95th percentile of the gains.
        high_drawn: The same, found anew on each resample of the clusters.
        cosine: Median |cosine| of the draws with v: near 1 the null is v itself.
    """

    name: str
    gains: Float[np.ndarray, " lane"]
    high: float
    high_drawn: Float[np.ndarray, " draw"]
    cosine: float

    @classmethod
    def of(
        cls,
        name: str,
        gains: Float[np.ndarray, " lane"],
        drawn: Float[np.ndarray, "lane draw"],
        *,
        cosine: float = float("nan"),
    ) -> "Null":
        """Take the percentiles.

        Args:
            name: Of the control.
            gains: Gain of each draw of the null.
            drawn: Gain of each draw on each resample of the clusters.
            cosine: Median |cosine| of the draws with v.
        """
        high = float(percentile(gains[:, None])[0])
        return cls(name, gains, high, percentile(drawn), cosine)


@dataclass(frozen=True, eq=False)
class Margin:
    """Gain of an edit minus the 95th percentile of the null that comes closest to it.

    Attributes:
        value: On the questions as they are.
        drawn: On each resample; the strongest null is found anew on each.
        strongest: The null with the highest 95th percentile.
        p: (1 + draws that gain as much) / (1 + draws), the largest of all nulls.
    """

    value: float
    drawn: Float[np.ndarray, " draw"]
    strongest: Null
    p: float


def percentile(values: Float[np.ndarray, "lane column"]) -> Float[np.ndarray, " column"]:
    """95th percentile of each column, with numpy's linear interpolation.

    `np.partition` on two places: `np.quantile` takes three times as long, and this runs on 999
    draws times as many resamples, for every null.
    """
    place = LEVEL * (len(values) - 1)
    low, high = int(np.floor(place)), int(np.ceil(place))
    ordered = np.partition(values, sorted({low, high}), axis=0)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def margin_over(
    gain: float, drawn: Float[np.ndarray, " draw"], nulls: Sequence[Null]
) -> Margin | None:
    """Hold one gain against all nulls.

    Args:
        gain: Of the edit.
        drawn: The same on each resample.
        nulls: With percentiles on the same resamples.

    Returns:
        None without a null.
    """
    if not nulls:
        return None
    strongest = max(nulls, key=lambda one: one.high)
    beyond = np.max([one.high_drawn for one in nulls], axis=0)
    # A draw that gains as much but for rounding counts as one that gains as much.
    reached = [(1 + int((one.gains >= gain - 1e-12).sum())) / (1 + len(one.gains)) for one in nulls]
    return Margin(gain - strongest.high, drawn - beyond, strongest, max(reached))


def verdict(value: float, low: float, high: float, *, broken: bool, least: float) -> str:
    """What a margin says.

    Args:
        value: Margin.
        low: Lower end of its interval.
        high: Upper end.
        broken: Whether the edit breaks answers.
        least: Smallest margin that counts.

    Returns:
        specific: at least `least` with its interval above 0; not specific: an interval that lies
        wholly below `least`; broken; else inconclusive.
    """
    if broken:
        return "broken"
    if value >= least and low > 0:
        return "specific"
    return "not specific" if high < least else "inconclusive"
