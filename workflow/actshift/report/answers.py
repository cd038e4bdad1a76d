"""The answer per pair: sentences built from the tables, each able to say "cannot be told".

No sentence is fixed in advance: a rule looks at the numbers, checks what the claim requires and
picks the wording. Every point carries the number of prompts (and clusters) it rests on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actshift.report.causal_points import ablation_point, refusal_point
from actshift.report.claims import (
    concepts_point,
    direction_point,
    heldout_point,
    layers_point,
    low_rank_point,
    template_point,
)
from actshift.report.point import Point
from actshift.report.tables import Tables

_POINTS: tuple[Callable[[Tables, str], Point], ...] = (
    low_rank_point,
    template_point,
    layers_point,
    direction_point,
    heldout_point,
    concepts_point,
)
#: Points of studies that a run may leave out: by the table without which there is no question.
_OF_STUDIES: dict[str, Callable[[Tables, str], Point]] = {
    "refusal_effect": refusal_point,
    "ablation_sweep": ablation_point,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tables say about one pair."""

    pair: str
    sentence: str
    points: tuple[Point, ...]


def answer_pair(tables: Tables, pair: str) -> Answer:
    """The sentence and the points of one pair.

    Args:
        tables: table name -> rows of all pairs; missing tables give points that say so.
        pair: the pair's name.

    Returns:
        One sentence of clauses (one a point that has something to say) and the points.
    """
    asked = (make for table, make in _OF_STUDIES.items() if table in tables)
    points = tuple(make(tables, pair) for make in (*_POINTS, *asked))
    clauses = [point.clause for point in points if point.clause]
    sentence = "; ".join(clauses) + "." if clauses else "Its tables hold nothing to answer from."
    return Answer(pair, sentence[0].upper() + sentence[1:], points)


def answers(tables: Tables, *, order: Sequence[str] = ()) -> list[Answer]:
    """One answer for each pair that has rank rows, in the order of the config.

    Args:
        tables: table name -> rows.
        order: pair names as configured; pairs not named there follow.

    Returns:
        Answers; an empty list when no pair has finished.
    """
    if "rank" not in tables:
        return []
    found = [str(pair) for pair in tables["rank"]["pair"].unique()]
    ordered = [pair for pair in order if pair in found]
    return [answer_pair(tables, pair) for pair in ordered + [p for p in found if p not in ordered]]
