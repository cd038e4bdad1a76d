"""The claims that ship: an edit that breaks a model decides nothing, and edits have one cell."""

from actshift.stages.claims import claims_file, read_claims
from actshift.studies.ablation.study import COLUMNS
from actshift.studies.ablation.tables.rows import PRIMARY_PATCH, PRIMARY_SWEEP
from actshift.studies.registry import STUDIES

SHIPPED = read_claims([claims_file(study) for study in STUDIES])
#: Claims about what an edit does, its random control apart.
EDITS = [
    claim
    for claim in SHIPPED
    if claim.table in ("ablation_sweep", "substitution", "old_or_new")
    and claim.cell.get("frame") != "random"
]


def test_large_studies_have_their_claims() -> None:
    counts = {study: sum(claim.study == study for claim in SHIPPED) for study in STUDIES}
    assert counts["localization"] >= 9
    assert counts["misalignment"] >= 11


def test_a_broken_edit_decides_nothing() -> None:
    for claim in EDITS:
        guards = {(rule.column, rule.minus): rule for rule in claim.requires}
        assert guards["harmless_on_topic", None].at_least == 0.8, claim.id
        assert guards["plain_refusal", "random_refusal_median"].at_most == 0.1, claim.id
        assert guards["judged", None].at_least == 1, claim.id
        if "k_over_d" in COLUMNS[claim.table]:
            assert guards["k_over_d", None].at_most == 1 / 8, claim.id


def test_claims_about_edits_read_the_primary_cell() -> None:
    """Of the sweep the marked cell, or one that differs in the key that is asked about."""
    assert len(EDITS) >= 5
    for claim in SHIPPED:
        if claim.table == "ablation_sweep":
            differs = {key for key, value in PRIMARY_SWEEP.items() if claim.cell[key] != value}
            assert differs <= {"protocol", "frame"}, claim.id
            assert len(differs) <= 1, claim.id
        if claim.table == "substitution":
            assert {**claim.cell, "lane": PRIMARY_PATCH["lane"]} == PRIMARY_PATCH, claim.id
        if claim.table == "ordering":
            wanted = {key: PRIMARY_SWEEP[key] for key in ("frame", "band", "edit")}
            assert {key: claim.cell[key] for key in wanted} == wanted, claim.id
