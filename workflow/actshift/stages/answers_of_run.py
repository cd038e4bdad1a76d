"""The answer per pair: sentences built from the tables, each able to say "cannot be told".

No sentence is fixed in advance: a rule looks at the numbers, checks what the claim requires and
picks the wording. Every point carries the number of prompts (and clusters) it rests on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from actshift.report.catalogue import TABLES
from actshift.report.point import Point
from actshift.report.tables import Tables
from actshift.studies.ablation.answers import ablation_point, refusal_point
from actshift.studies.localization.answers import prompt_token_point, swap_point
from actshift.studies.misalignment.answers import across_point, spillover_point, within_point
from actshift.studies.rank_audit.answers import (
    concepts_point,
    direction_point,
    heldout_point,
    layers_point,
    low_rank_point,
    template_point,
)

_Make = Callable[[Tables, str], Point]
_AUDIT: tuple[_Make, ...] = (
    low_rank_point,
    template_point,
    layers_point,
    direction_point,
    heldout_point,
    concepts_point,
)
#: Points of studies that a run may leave out: by the table without which there is no question.
_CAUSAL: dict[str, _Make] = {
    "refusal_effect": refusal_point,
    "ablation_sweep": ablation_point,
}
_LOCALIZATION: tuple[_Make, ...] = (swap_point, prompt_token_point)
_MISALIGNMENT: tuple[_Make, ...] = (spillover_point, within_point, across_point)
#: Tables whose pairs get an answer.
_ANSWERED = ("rank", "localization_summary", "spillover")
#: Studies that fill them: without any of them no pair can be answered.
ANSWERING = tuple(TABLES[name].study for name in _ANSWERED)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tables say about one pair."""

    pair: str
    sentence: str
    points: tuple[Point, ...]


def answer_pair(tables: Tables, pair: str) -> Answer:
    """The sentences and the points of one pair.

    Args:
        tables: table name -> rows of all pairs; missing tables give points that say so.
        pair: the pair's name.

    Returns:
        A sentence for each kind of study (a clause for each point that has something to say), and
        the points.
    """
    groups = [[make(tables, pair) for make in group] for group in _asked(tables)]
    sentences = " ".join(filter(None, map(_sentence, groups)))
    points = tuple(point for group in groups for point in group)
    return Answer(pair, sentences or "Its tables hold nothing to answer from.", points)


def _asked(tables: Tables) -> Iterator[tuple[_Make, ...]]:
    """The points that the tables raise, a group a kind of study."""
    if any(TABLES[name].study == "rank_audit" for name in tables):
        yield _AUDIT
    yield tuple(make for table, make in _CAUSAL.items() if table in tables)
    if "preference_margins" in tables:
        yield _LOCALIZATION
    if "spillover" in tables:
        yield _MISALIGNMENT


def _sentence(points: Sequence[Point]) -> str:
    """Their clauses as one sentence; empty where none has something to say."""
    text = "; ".join(point.clause for point in points if point.clause)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def answers(tables: Tables, *, order: Sequence[str] = ()) -> list[Answer]:
    """One answer for each pair that the audit, localization or study B has rows of.

    Args:
        tables: table name -> rows.
        order: pair names as configured; pairs not named there follow.

    Returns:
        Answers; an empty list when no pair has finished.
    """
    named = (tables[name]["pair"] for name in _ANSWERED if name in tables)
    found = list(dict.fromkeys(str(pair) for pairs in named for pair in pairs))
    ordered = [pair for pair in order if pair in found]
    return [answer_pair(tables, pair) for pair in ordered + [p for p in found if p not in ordered]]
