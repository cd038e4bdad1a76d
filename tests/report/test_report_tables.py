"""Tables as figures and page read them: known columns, names as text, no more rows than fit."""

from pathlib import Path

import pandas as pd
import pytest
from report.runs import write_run
from report.synthetic_causal import causal_tables
from report.synthetic_tables import synthetic_tables

from actshift.errors import UserError
from actshift.report.page import cells_of
from actshift.report.tables import load_tables
from actshift.stages.report import answers
from actshift.studies.registry import CATALOGUE


def test_a_table_of_another_version_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"rank": pd.DataFrame({"pair": ["x"], "layer": [0]})})
    with pytest.raises(UserError, match=r"rank\.csv: no column matrix"):
        load_tables(run / "tables", CATALOGUE)


def test_empty_tables_count_as_missing_and_names_stay_text(tmp_path: Path) -> None:
    tables = synthetic_tables(("7",), n_layers=2)
    run = write_run(tmp_path / "run", {"rank": tables["rank"], "summary": tables["summary"][:0]})
    loaded = load_tables(run / "tables", CATALOGUE)
    assert list(loaded) == ["rank"]
    assert answers(loaded)[0].pair == "7"


def test_sets_of_directions_stay_text(tmp_path: Path) -> None:
    table = causal_tables(("x",))["direction_ablation"]
    run = write_run(tmp_path / "run", {"direction_ablation": table[table["kind"] == "single"]})
    loaded = load_tables(run / "tables", CATALOGUE)["direction_ablation"]
    assert loaded["directions"].tolist()[:3] == ["1", "2", "3"]


def test_long_tables_are_cut_and_say_so() -> None:
    table = pd.DataFrame({"layer": range(300), "rank": [1.23456] * 300, "pair": "x", "ok": True})
    cells = cells_of("rank", "tables/rank.csv", table, max_rows=10)
    assert (len(cells.rows), cells.total) == (10, 300)
    assert cells.rows[9] == ("9", "1.23", "x", "True")
    assert cells.numeric == (True, True, False, False)
