"""The tables that the report relies on are the ones that the studies write."""

import pytest
from actshift.report.catalogue import OF_THE_RUN, TABLES, study_of
from actshift.report.spec import STUDIES
from actshift.studies.ablation.tables.columns import COLUMNS as ABLATION
from actshift.studies.ablation.tables.columns import PUBLISHED_COLUMNS, PUBLISHED_TABLE
from actshift.studies.localization.tables.columns import COLUMNS as LOCALIZATION
from actshift.studies.localization.tables.columns import PUBLISHED_COLUMNS as LOCATED_COLUMNS
from actshift.studies.localization.tables.columns import PUBLISHED_TABLE as LOCATED_TABLE
from actshift.studies.misalignment.tables.columns import COLUMNS as MISALIGNMENT
from actshift.studies.misalignment.tables.columns import JUDGED
from actshift.studies.misalignment.tables.columns import PUBLISHED_COLUMNS as STEERED_COLUMNS
from actshift.studies.misalignment.tables.columns import PUBLISHED_TABLE as STEERED_TABLE
from actshift.studies.spectral_gap.columns import GAP, SUMMARY
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_misalignment import misalignment_tables

from actshift.studies.ablation.judge import AGREEMENT, JUDGE
from actshift.studies.calibration.files import TABLES as CALIBRATION
from actshift.studies.localization.gate import MARGIN_COLUMNS
from actshift.studies.rank_audit.study import COLUMNS as RANK
from actshift.studies.refusal_direction.tables import CANDIDATES, EFFECT
from actshift.zoo.behaviour import ATTEMPT_COLUMNS
from actshift.zoo.behaviour import COLUMNS as BEHAVIOUR

#: Table, as the report calls it -> every column that its study writes.
WRITTEN: dict[str, tuple[str, ...]] = {
    **RANK,
    **{
        "localization_summary" if name == "summary" else name: columns
        for name, columns in LOCALIZATION.items()
    },
    LOCATED_TABLE: LOCATED_COLUMNS,
    "preference_margins": MARGIN_COLUMNS,
    **{
        "misalignment_side_effects" if name == "side_effects" else name: columns
        for name, columns in MISALIGNMENT.items()
    },
    STEERED_TABLE: STEERED_COLUMNS,
    "judged": JUDGED,
    **ABLATION,
    PUBLISHED_TABLE: PUBLISHED_COLUMNS,
    "refusal_direction": CANDIDATES,
    "refusal_effect": EFFECT,
    "judge": JUDGE,
    "judge_agreement": AGREEMENT,
    "spectral_gap": GAP,
    "spectral_gap_summary": SUMMARY,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_table_of_a_study_is_shown_and_holds_what_is_read(name: str) -> None:
    assert set(TABLES[name].columns) <= set(WRITTEN[name])


def test_every_table_of_the_zoo_is_shown_and_holds_what_is_read() -> None:
    written = {"zoo_behaviour": BEHAVIOUR, "zoo_attempts": ATTEMPT_COLUMNS}
    for name, columns in written.items():
        assert TABLES[name].study == OF_THE_RUN
        assert set(TABLES[name].columns) <= set(columns)


def test_no_table_is_known_that_nobody_writes() -> None:
    of_studies = {name for name, known in TABLES.items() if known.study != OF_THE_RUN}
    assert of_studies == set(WRITTEN) | set(CALIBRATION)
    assert {known.study for known in TABLES.values()} == {*STUDIES, OF_THE_RUN}


MADE_UP = {
    **causal_tables(("x",)),
    **localization_tables(("x",)),
    **misalignment_tables(("x", "y")),
}


@pytest.mark.parametrize("name", sorted(set(WRITTEN) & set(MADE_UP)))
def test_made_up_tables_have_no_column_of_their_own(name: str) -> None:
    assert set(MADE_UP[name].columns) <= set(WRITTEN[name])


def test_no_file_is_two_tables_and_each_knows_its_study() -> None:
    files = [(known.folder, known.file) for known in TABLES.values()]
    assert len(set(files)) == len(files)
    assert [study_of(*file) for file in files] == [known.study for known in TABLES.values()]
    assert (study_of("rank_audit", "summary"), study_of("localization", "summary")) == (
        "rank_audit",
        "localization",
    )
    assert study_of("localization", "spectral_gap") is None
