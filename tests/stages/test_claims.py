"""The stage on files: the shipped claims, decided from whatever tables a run has."""

from pathlib import Path

import pytest
from report.synthetic_tables import synthetic_tables

from actshift.claims.file import CLAIM_COLUMNS
from actshift.errors import UserError
from actshift.io.tables import read_table, write_table
from actshift.stages.claims import claims_file, make_claims, read_claims
from actshift.studies.registry import STUDIES

SHIPPED = [claims_file(study) for study in STUDIES]


def write_tables(folder: Path, pairs: tuple[str, ...]) -> list[Path]:
    """The synthetic rank tables, where a run has them."""
    tables = synthetic_tables(pairs, n_layers=3)
    paths = []
    for name in ("rank", "inflation", "heldout_rank", "cosine"):
        paths.append(folder / "rank_audit" / f"{name}.csv")
        write_table(tables[name], paths[-1])
    return paths


def test_every_claim_gets_one_of_five_verdicts(tmp_path: Path) -> None:
    tables = write_tables(tmp_path, ("7", "llama"))
    make_claims(tables, SHIPPED, tmp_path, pairs=["7", "llama", "gone"])
    found = read_table(tmp_path / "claims.csv")
    assert list(found.columns) == list(CLAIM_COLUMNS)
    assert found["claim"].tolist() == [claim.id for claim in read_claims(SHIPPED)]
    allowed = {"holds", "fails", "inconclusive", "by construction", "not measured"}
    assert set(found["verdict"]) <= allowed
    units = read_table(tmp_path / "claims_by_pair.csv")
    inflation = units.loc[units["claim"] == "template-inflates-rank"]
    assert inflation["name"].tolist() == ["7", "llama", "gone"]
    assert inflation["reason"].tolist()[2] == ("table inflation.csv has no row with inputs harmful")


def test_no_table_at_all_is_an_answer_too(tmp_path: Path) -> None:
    make_claims([], SHIPPED, tmp_path, pairs=["llama"])
    found = read_table(tmp_path / "claims.csv")
    assert set(found["verdict"]) == {"not measured"}
    assert found["reason"].str.endswith(".csv has not been made").all()
    sweep = found.loc[found["claim"] == "ablation-removes-refusal"].iloc[0]
    assert sweep["reason"] == "table ablation_sweep.csv has not been made"
    assert sweep["holds_in"] == "0 of 1"


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    tables = write_tables(tmp_path, ("llama",))
    for name in ("a", "b"):
        make_claims(tables[:: 1 if name == "a" else -1], SHIPPED, tmp_path / name, pairs=["llama"])
    for file in ("claims.csv", "claims_by_pair.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_damaged_claims_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "resources" / "claims.yaml"
    path.parent.mkdir()
    path.write_text("- id: x\n  kind: ratio\n")
    with pytest.raises(UserError, match=r"^resources/claims.yaml: claim 'x': study: this key"):
        make_claims([], [path], tmp_path, pairs=[])
