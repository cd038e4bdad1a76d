"""The claims file of the repository: its cells, columns and guards exist."""

from pathlib import Path

import pytest

from actshift.claims.cells import named_columns
from actshift.claims.file import Claim
from actshift.stages.claims import read_claims
from actshift.studies.ablation.tables.columns import COLUMNS as ABLATION_COLUMNS
from actshift.studies.ablation.tables.substitution import PRIMARY as PRIMARY_PATCH
from actshift.studies.ablation.tables.sweep import PRIMARY as PRIMARY_SWEEP
from actshift.studies.localization.tables.columns import COLUMNS as LOCALIZATION_COLUMNS
from actshift.studies.misalignment.tables.columns import COLUMNS as MISALIGNMENT_COLUMNS
from actshift.studies.rank_audit.study import COLUMNS as RANK_COLUMNS
from actshift.studies.refusal_direction.tables import EFFECT

SHIPPED = read_claims(Path(__file__).parents[2] / "resources" / "claims.yaml")
#: Two studies have a table `summary`, so a table is named by its study too.
KNOWN = {
    (study, name): set(columns)
    for study, tables in {
        "rank_audit": {**RANK_COLUMNS, **ABLATION_COLUMNS, "refusal_effect": EFFECT},
        "localization": LOCALIZATION_COLUMNS,
        "misalignment": MISALIGNMENT_COLUMNS,
    }.items()
    for name, columns in tables.items()
}
#: Claims about what an edit does, its random control apart.
EDITS = [
    one
    for one in SHIPPED
    if one.table in ("ablation_sweep", "substitution", "old_or_new")
    and one.cell.get("frame") != "random"
]


@pytest.mark.parametrize(
    "one",
    [one for one in SHIPPED if (one.study, one.table) in KNOWN],
    ids=lambda one: one.id,
)
def test_claims_name_columns_that_exist(one: Claim) -> None:
    own = KNOWN[one.study, one.table]
    joined = KNOWN[one.study, one.join.table] if one.join else set()
    assert set(named_columns(one)) <= own | joined
    if one.join:
        assert set(one.join.on) <= own & joined


def test_every_claim_about_localization_names_a_table_of_it() -> None:
    tables = [one.table for one in SHIPPED if one.study == "localization"]
    assert len(tables) >= 9
    assert {("localization", table) for table in tables} <= KNOWN.keys()


def test_every_claim_about_misalignment_names_a_table_of_it() -> None:
    tables = [one.table for one in SHIPPED if one.study == "misalignment"]
    assert len(tables) >= 11
    assert {("misalignment", table) for table in tables} <= KNOWN.keys()


@pytest.mark.parametrize("one", EDITS, ids=lambda one: one.id)
def test_a_broken_edit_decides_nothing(one: Claim) -> None:
    guards = {(rule.column, rule.minus): rule for rule in one.requires}
    assert guards["harmless_on_topic", None].at_least == 0.8
    assert guards["plain_refusal", "random_refusal_median"].at_most == 0.1
    assert guards["judged", None].at_least == 1
    if "k_over_d" in KNOWN[one.study, one.table]:
        assert guards["k_over_d", None].at_most == 1 / 8


def test_claims_about_edits_read_the_primary_cell() -> None:
    """Of the sweep the marked cell, or one that differs in the key that is asked about."""
    assert len(EDITS) >= 5
    for one in SHIPPED:
        if one.table == "ablation_sweep":
            differs = {key for key, value in PRIMARY_SWEEP.items() if one.cell[key] != value}
            assert differs <= {"protocol", "frame"}
            assert len(differs) <= 1
        if one.table == "substitution":
            assert {**one.cell, "lane": PRIMARY_PATCH["lane"]} == PRIMARY_PATCH
        if one.table == "ordering":
            wanted = {key: PRIMARY_SWEEP[key] for key in ("frame", "band", "edit")}
            assert {key: one.cell[key] for key in wanted} == wanted
