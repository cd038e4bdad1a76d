"""One point of an answer, and how its numbers are written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from actshift.report.tables import first
from actshift.vocab import counted

#: Below this median rank a ratio of ranks says nothing: at the floor it is 1/1.
RANK_FLOOR = 3
#: A rank above this share of the number of prompts is set by the sample.
SAMPLE_SHARE = 1 / 3
#: rank >= 1 makes rank/d >= 1/d, so narrower models cannot reach published values of rank/d.
RHO_MIN_WIDTH = 1024
#: Cosines closer than this count as equal: no claim of a difference is made below it.
COSINE_MARGIN = 0.1
#: With fewer held-out clusters nothing is said about new topics.
MIN_CLUSTERS = 10

#: `by construction`: true, but of the algebra and not of the model.
Verdict = Literal["measured", "inconclusive", "by construction", "cannot be told", "not measured"]


@dataclass(frozen=True, slots=True)
class Point:
    """A question, what the numbers say, and what the statement rests on."""

    question: str
    verdict: Verdict
    #: Part of the pair's sentence; empty when there is nothing to say.
    clause: str
    #: The numbers, with the control or null beside the effect.
    detail: str
    #: Prompts, clusters and the caveat.
    basis: str
    #: The number alone, for the overview.
    brief: str


def not_measured(question: str, table: str) -> Point:
    """The point of a claim whose table has no rows for this pair."""
    return Point(question, "not measured", "", f"{table}.csv has no rows for this pair.", "", "")


def number(value: float) -> str:
    """Three significant digits at most, no trailing zeros: 1, 1.5, 0.98, 77.6."""
    if not np.isfinite(value):
        return "n/a"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def unit(value: float) -> str:
    """A cosine or a share of 1, two decimals."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def percent(share: float) -> str:
    """A share as a percentage; never rounded up to 100 or down to 0."""
    value = 100 * share
    text = f"{value:.0f}" if 1 <= value <= 99 else f"{value:.1f}"
    return f"{text} %"


def spans(layers: Iterable[int]) -> str:
    """Layer numbers as ranges: 0, 2-4, 7."""
    runs: list[list[int]] = []
    for layer in sorted(map(int, layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def spread(numbers: pd.Series) -> str:
    """Smallest to largest of some numbers; one where they agree as written."""
    known = numbers.dropna().astype(float)
    if known.empty:
        return "n/a"
    low, high = number(known.min()), number(known.max())
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tables say about one pair."""

    pair: str
    sentence: str
    points: tuple[Point, ...]


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
