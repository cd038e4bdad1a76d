"""One run of all studies at their smallest, from training to the page, and again."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from workflow.runner import Clone, micro_config

from actshift.io.tables import read_table
from actshift.studies.contract import Study, Table
from actshift.studies.registry import CATALOGUE, STUDIES

CHANGES = yaml.safe_load((Path(__file__).parent / "every.yaml").read_text())
ON = CATALOGUE.of(CHANGES["studies"])


def test_all_studies_are_on() -> None:
    assert set(STUDIES) == set(ON.studies)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The finished run."""
    made = Clone.make(tmp_path_factory.mktemp("every") / "clone")
    done = made.run("--configfile", made.write_config("every.yaml", micro_config() | CHANGES))
    assert done.returncode == 0, done.stdout[-8000:]
    return made


def of_the_run() -> Iterator[tuple[Study, Table]]:
    """The tables that a run without a judge makes."""
    for study in ON.studies.values():
        yield from ((study, table) for table in study.tables if not table.optional)


def test_every_table_has_rows_and_the_columns_that_are_declared(clone: Clone) -> None:
    tables = clone.root / "results" / "every" / "tables"
    for study, table in of_the_run():
        rows = read_table(tables / study.place / f"{table.stem}.csv")
        assert tuple(rows.columns) == table.names, table.name
        assert len(rows), table.name


def test_every_figure_is_drawn_from_rows_and_on_the_page(clone: Clone) -> None:
    results = clone.root / "results" / "every"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert 'id="failures"' not in page
    assert "Empty figure" not in page
    for figure, study in ON.figure_studies.items():
        svg = (results / "figures" / study / f"{figure}.svg").read_text(encoding="utf-8")
        (height,) = re.findall(r"<svg[^>]* viewBox='0 0 \S+ ([\d.]+)'", svg)
        # A figure without rows holds one line that says so.
        assert float(height) > 120, figure
        assert f'id="figure-{figure}"' in page, figure
    for study in ON.studies:
        assert f'id="figures-{study}"' in page, study
    first = (results / "rank_audit.html").read_text(encoding="utf-8")
    assert 'id="figure-rank_by_layer"' in first
    assert 'id="figure-patching"' not in first
    assert 'href="report.html"' in first
    assert 'id="claims"' not in first


def test_every_claim_about_a_table_of_the_run_finds_its_table(clone: Clone) -> None:
    claims = read_table(clone.root / "results" / "every" / "tables" / "claims.csv")
    files = zip(claims["study"], claims["table"].str.removesuffix(".csv"), strict=True)
    asked = claims[[CATALOGUE.study_of(*file) in ON.studies for file in files]]
    late = asked[asked["reason"].fillna("").str.contains("has not been made|has no column")]
    assert late["claim"].tolist() == []


def test_a_second_run_does_nothing(clone: Clone) -> None:
    assert set(clone.planned("--configfile", "every.yaml")) <= {"all"}
