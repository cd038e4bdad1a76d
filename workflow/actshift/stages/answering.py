"""The answer per pair: what every study says about it, from the tables.

No sentence is fixed in advance: a study looks at the numbers, checks what the claim requires and
picks the wording. Every point carries the number of prompts (and clusters) it rests on.
"""

from collections.abc import Iterator, Sequence

from actshift.report.point import Answer, Point
from actshift.report.tables import Tables
from actshift.studies.contract import named
from actshift.studies.registry import STUDIES

_ANSWERS = {name: study.answers for name, study in STUDIES.items() if study.answers}
#: Studies whose pairs get an answer: without any of them no pair can be answered.
ANSWERING = tuple(name for name, answers in _ANSWERS.items() if answers.pairs_of)


def answer_pair(tables: Tables, pair: str) -> Answer:
    """The sentences and the points of one pair.

    Args:
        tables: table name -> rows of all pairs; missing tables give points that say so.
        pair: the pair's name.

    Returns:
        A sentence for each study (a clause for each point that has something to say), and the
        points.
    """
    groups = list(_groups(tables, pair))
    sentences = " ".join(filter(None, map(_sentence, groups)))
    points = tuple(point for group in groups for point in group)
    return Answer(pair, sentences or "Its tables hold nothing to answer from.", points)


def _groups(tables: Tables, pair: str) -> Iterator[Sequence[Point]]:
    """The points of each study that left its table."""
    for answers in _ANSWERS.values():
        if any(name in tables for name in answers.asks):
            yield named(answers.points)(tables, pair)


def _sentence(points: Sequence[Point]) -> str:
    """Their clauses as one sentence; empty where none has something to say."""
    text = "; ".join(point.clause for point in points if point.clause)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def answers(tables: Tables, *, order: Sequence[str] = ()) -> list[Answer]:
    """One answer for each pair that an answering study has rows of.

    Args:
        tables: table name -> rows.
        order: pair names as configured; pairs not named there follow.

    Returns:
        Answers; an empty list when no pair has finished.
    """
    read = (answers.pairs_of for answers in _ANSWERS.values() if answers.pairs_of in tables)
    pairs = list(dict.fromkeys(str(pair) for name in read for pair in tables[name]["pair"]))
    ordered = [pair for pair in order if pair in pairs]
    return [answer_pair(tables, pair) for pair in ordered + [p for p in pairs if p not in ordered]]
