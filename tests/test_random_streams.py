"""The register of random streams: numbers that do not collide, and no draw outside it."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from actshift import random_streams
from actshift.random_streams import Stream

PACKAGE = Path(random_streams.__file__).resolve().parent
STREAMS = {name: value for name, value in vars(random_streams).items() if isinstance(value, Stream)}


def test_no_two_streams_of_a_study_share_a_number() -> None:
    numbered = [(one.study, one.number) for one in STREAMS.values() if one.number is not None]
    assert [key for key, count in Counter(numbered).items() if count > 1] == []


def test_large_numbers_are_used_once_in_the_project() -> None:
    numbers = [one.number for one in STREAMS.values() if one.number is not None and one.number > 2]
    assert len(set(numbers)) == len(numbers)


def test_numbers_are_those_that_published_tables_were_drawn_with() -> None:
    assert {name: one.number for name, one in STREAMS.items() if one.number is not None} == {
        "HELDOUT_SHARES": 99,
        "RANDOM_FRAMES": 1,
        "STEERING": 1,
        "RANDOM_SUBSPACES": 2,
        "PERMUTED_TARGETS": 1,
        "RANDOM_BASES": 51,
        "RANDOM_PUSHES": 52,
        "MARGIN_GATE": 53,
        "PATCH_EFFECTS": 54,
        "RIDGE_MAPS": 60,
        "DIRECTION_NULLS": 61,
        "LANE_TESTS": 71,
        "ASYMMETRY": 83,
    }


@pytest.mark.parametrize(
    ("number", "places", "seed"),
    [(None, (), 7), (None, (2, 3), [7, 2, 3]), (54, (), [7, 54]), (61, (1, 0), [7, 61, 1, 0])],
)
def test_a_seed_is_that_of_the_run_then_number_then_places(number, places, seed) -> None:
    drawn = Stream("study", "purpose", number).rng(7, *places).random(4)
    np.testing.assert_array_equal(drawn, np.random.default_rng(seed).random(4))


def test_every_generator_comes_from_the_register() -> None:
    outside = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path != Path(random_streams.__file__).resolve()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("default_rng", "SeedSequence")
    ]
    assert outside == []


def test_every_stream_is_drawn_from() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert [name for name in STREAMS if not any(f"{name}.rng(" in text for text in texts)] == []
