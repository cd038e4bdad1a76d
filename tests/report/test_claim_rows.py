"""Claims on the page: after the models, every verdict readable, everything escaped."""

import re
from pathlib import Path

import pandas as pd
import pytest
from report.declared import declared
from report.runs import HOSTILE, config_of, write_run
from report.synthetic_tables import synthetic_tables

from actshift.report.page import claim_rows, claims_line, claims_of
from actshift.report.tables import load_tables
from actshift.stages.report import make_report
from actshift.studies.registry import CATALOGUE

NAN = float("nan")


def claims(*changes: dict) -> pd.DataFrame:
    row = {
        "study": "rank_audit", "claim": "template-inflates-rank", "statement": "It inflates.",
        "verdict": "holds", "holds_in": "2 of 2", "reason": "", "measured": 2.5, "low": 1.25,
        "high": 3.0, "published": "3.88", "kind": "ratio", "decided_by": "median ratio above 1",
        "primary_cell": "inputs harmful", "table": "inflation.csv", "source": "paper, table 1",
    }  # fmt: skip
    rows = pd.DataFrame([row | change for change in changes])
    return declared({"claims": rows})["claims"]


def test_numbers_are_shown_with_their_interval() -> None:
    rows = claim_rows(
        claims({}, {"low": NAN, "high": NAN}, {"measured": NAN, "holds_in": NAN, "reason": NAN})
    )
    assert [row["measured"] for row in rows] == ["2.5 (1.25 to 3)", "2.5", ""]
    assert (rows[2]["holds_in"], rows[2]["reason"]) == ("", "")
    assert rows[0]["basis"] == "median ratio above 1; inputs harmful; inflation.csv"


def test_no_table_gives_no_rows() -> None:
    assert claim_rows(None) == []
    assert claims_line([]) == ""


def test_verdicts_are_counted() -> None:
    rows = claim_rows(claims({}, {"verdict": "not measured"}, {"verdict": "not measured"}))
    assert claims_line(rows) == "2 not measured, 1 holds"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tables = synthetic_tables(("llama",), n_layers=2)
    tables["claims"] = claims({}, {"verdict": "by construction", "statement": HOSTILE})
    return write_run(tmp_path / "run", tables)


def test_claims_follow_the_models_and_are_escaped(run: Path, tmp_path: Path) -> None:
    make_report(run, tmp_path / "report.html", config=config_of("llama"), failures=[])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r'<section id="(\w+)"', html)
    assert sections[:2] == ["models", "claims"]
    assert html.index('id="claims"') < html.index('id="answers"')
    assert "2 claims: 1 holds, 1 by construction." in html
    assert '<span class="verdict v-by-construction">by construction</span>' in html
    assert "2.5 (1.25 to 3)" in html
    assert HOSTILE not in html
    assert "tables/claims.csv" in html


def test_claims_of_studies_that_did_not_run_are_counted_and_not_listed(tmp_path: Path) -> None:
    tables = synthetic_tables(("llama",), n_layers=2)
    other = [
        {"claim": "ablated", "table": "ablation_sweep.csv"},
        {"claim": "content", "study": "misalignment", "table": "content.csv"},
    ]
    tables["claims"] = claims({}, *other, {"claim": "own", "table": "users.csv"})
    asked = claims_of(tables["claims"], {"rank_audit"}, CATALOGUE)
    assert asked is not None
    # Folders of tables are shared by studies: what decides is whose table it is.
    assert asked["claim"].tolist() == ["template-inflates-rank", "own"]
    assert claims_of(None, {"rank_audit"}, CATALOGUE) is None
    run, page = write_run(tmp_path / "run", tables), tmp_path / "report.html"
    settings = {**config_of("llama"), "studies": ["rank_audit"]}
    make_report(run, page, config=settings, failures=[])
    html = page.read_text(encoding="utf-8")
    assert "2 claims: 2 holds." in html
    assert "Left out here: 2 of studies that this run does not have" in html


def test_a_run_without_claims_has_no_such_section(run: Path, tmp_path: Path) -> None:
    (run / "tables" / "claims.csv").unlink()
    assert "claims" not in load_tables(run / "tables", CATALOGUE)
    make_report(run, tmp_path / "report.html", config=config_of("llama"), failures=[])
    assert 'id="claims"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
