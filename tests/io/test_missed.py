"""The marker of a missed gate: written whole, read back, and told from numbers and from nothing."""

from pathlib import Path

import pandas as pd
import pytest

from actshift.io.missed import (
    MISSED,
    Missed,
    against,
    first_missed,
    has_numbers,
    mark_missed,
    missed_in,
    place_of_rows,
    why_without,
    write_marker,
)
from actshift.io.tables import table_damage, write_table
from actshift.job import kept_rows, pass_on

ONE = Missed("gemma: insecure adapter", "gate missed, 35 % of 40 %", 'More: é, "x".', "spillover")
TWO = Missed("zoo llama-micro-s0/chat", "gate missed, refused 8 % of 95 %", "All rates.", "zoo")


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "table.csv").write_text("a\n1\n")
    return folder


def test_a_marker_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "stage"
    mark_missed(folder, ONE)
    assert [file.name for file in folder.iterdir()] == [MISSED]
    assert missed_in(folder) == ONE
    assert ONE.status == "not measured: gate missed, 35 % of 40 %"
    # The same bytes each time, and nothing half-written beside them.
    before = (folder / MISSED).read_bytes()
    mark_missed(folder, ONE)
    assert (folder / MISSED).read_bytes() == before
    assert [file.name for file in folder.parent.iterdir()] == ["stage"]


def test_a_marker_takes_the_place_of_numbers(tmp_path: Path) -> None:
    folder = filled(tmp_path / "stage")
    mark_missed(folder, ONE)
    assert [file.name for file in folder.iterdir()] == [MISSED]


def test_a_marker_can_lie_beside_what_is_there(tmp_path: Path) -> None:
    folder = filled(tmp_path / "stage")
    write_marker(folder, TWO)
    assert (folder / "table.csv").is_file()
    assert missed_in(folder) == TWO
    assert not has_numbers(folder)


def test_numbers_nothing_and_files_are_no_marker(tmp_path: Path) -> None:
    folder = filled(tmp_path / "stage")
    for path in (folder, tmp_path / "gone", folder / "table.csv"):
        assert missed_in(path) is None
    assert has_numbers(folder)
    assert not has_numbers(tmp_path / "gone")
    assert not has_numbers(folder / "table.csv")


def test_why_there_are_no_numbers(tmp_path: Path) -> None:
    mark_missed(tmp_path / "stage", ONE)
    assert why_without(tmp_path / "stage") == ONE.status
    assert why_without(tmp_path / "gone") == "its job failed"


def test_the_first_of_several_is_the_one_that_is_told(tmp_path: Path) -> None:
    mark_missed(tmp_path / "one", ONE)
    mark_missed(tmp_path / "two", TWO)
    numbers = filled(tmp_path / "numbers")
    assert first_missed([numbers, tmp_path / "two", tmp_path / "one"]) == TWO
    assert first_missed([numbers, numbers / "table.csv", tmp_path / "gone"]) is None
    assert first_missed([]) is None


def test_a_table_that_is_passed_on_leaves_no_old_checksum(tmp_path: Path) -> None:
    table = tmp_path / "pairs" / "gemma" / "localization.margins.csv"
    write_table(pd.DataFrame({"a": [1]}), table)
    pass_on(ONE, [str(table), str(tmp_path / "pairs" / "gemma" / "localization")])
    assert table.read_bytes() == b""
    assert table_damage(table) == []
    assert missed_in(table.with_name("localization")) == ONE


def test_rows_of_a_failed_job_lie_beside_its_status() -> None:
    """As `adapter.kept_rows` names them."""
    for rows in ("pairs/gemma/spillover.answers.csv", "zoo/llama-tiny-s0/chat.behaviour.csv"):
        path = Path("results/demo") / rows
        (kept,) = kept_rows(Path("results/demo/status"), {"rows": path}).values()
        assert place_of_rows(path, strict=False) == rows
        assert Path("results/demo") / place_of_rows(path, strict=True) == kept


@pytest.mark.parametrize(
    ("rate", "limit", "at_least", "words"),
    [
        (0.35, 0.4, True, "35 % of 40 %"),
        (0.355, 0.4, True, "35.5 % of 40 %"),
        (0.0, 1.0, True, "0 % of 100 %"),
        (1 / 3, 0.95, True, "33.3 % of 95 %"),
        (0.08, 0.05, False, "8 % of at most 5 %"),
        (float("nan"), 0.5, True, "unknown of 50 %"),
    ],
)
def test_a_rate_against_its_limit(rate: float, limit: float, at_least: bool, words: str) -> None:
    assert against(rate, limit, at_least=at_least) == words
