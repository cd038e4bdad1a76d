"""The registry knows every table, figure, answer and claim, and each knows its tables and columns.

What a study writes is checked against its declared columns when the tables are made.
"""

from pathlib import Path

from actshift.claims.cells import named_columns
from actshift.claims.file import Claim
from actshift.stages.claims import claims_file, read_claims
from actshift.stages.figures import caption_file, title
from actshift.studies.contract import named
from actshift.studies.registry import CATALOGUE, STUDIES
from actshift.zoo.behaviour import ATTEMPT_COLUMNS
from actshift.zoo.behaviour import COLUMNS as BEHAVIOUR

#: Of the whole registry: also the tables that the page does not show.
TABLES = [*(t for study in STUDIES.values() for t in study.tables), *CATALOGUE.of_the_run]
CLAIMS = {
    study: read_claims([claims_file(study)]) for study in STUDIES if claims_file(study).is_file()
}


def test_no_two_tables_have_one_name_or_one_file() -> None:
    names = [table.name for table in TABLES]
    assert len(set(names)) == len(names)
    files = [(s.place, table.stem) for s in STUDIES.values() for table in s.tables]
    assert len(set(files)) == len(files)
    for study in STUDIES.values():
        for table in study.tables:
            assert CATALOGUE.study_of(study.place, table.stem) == study.name, table.name
    assert CATALOGUE.study_of("localization", "spectral_gap") is None


def test_no_two_figures_have_one_name() -> None:
    names = [figure.name for study in STUDIES.values() for figure in study.figures]
    assert len(set(names)) == len(names)


def test_every_table_says_what_a_row_is_and_what_its_columns_mean() -> None:
    bare = [table.name for table in TABLES if not table.row]
    bare += [
        f"{t.name}.{column.name}" for t in TABLES for column in t.columns if not column.meaning
    ]
    assert bare == []


def test_tables_of_the_zoo_have_the_columns_that_are_written() -> None:
    assert CATALOGUE.tables["zoo_behaviour"].names == BEHAVIOUR
    assert CATALOGUE.tables["zoo_attempts"].names == ATTEMPT_COLUMNS


def test_figures_and_answers_read_tables_that_are_known_and_shown() -> None:
    for figure in CATALOGUE.figures.values():
        assert {*figure.tables, *figure.beside} <= set(CATALOGUE.tables), figure.name
    for study in STUDIES.values():
        if study.answers:
            asked = {*study.answers.asks, *filter(None, [study.answers.pairs_of])}
            known = {table.name for table in study.tables}
            assert asked <= known, study.name


def test_settings_that_figures_and_tables_take_exist() -> None:
    for study in STUDIES.values():
        taken = {*study.join_settings, *(key for f in study.figures for key in f.settings)}
        known = set(study.settings.model_fields) if study.settings else set()
        assert taken <= known, study.name


def test_every_named_function_exists() -> None:
    for study in STUDIES.values():
        assert callable(named(study.join)), study.join
        if study.answers:
            assert callable(named(study.answers.points)), study.answers.points
        for figure in study.figures:
            assert callable(named(figure.draw)), figure.draw
            assert not figure.seen or callable(named(figure.seen)), figure.seen


def test_every_figure_has_a_caption_file_and_every_caption_file_a_figure() -> None:
    folder = Path(caption_file(next(iter(CATALOGUE.figures)))).parents[2]
    files = {path.relative_to(folder).as_posix() for path in folder.glob("*/captions/*.rst")}
    wanted = {f"{study}/captions/{name}.rst" for name, study in CATALOGUE.figure_studies.items()}
    assert files == wanted
    for name in CATALOGUE.figures:
        head = caption_file(name).read_text(encoding="utf-8").splitlines()[0]
        assert head == f"**{title(name)}**", name


def test_ids_of_claims_are_unique_over_all_studies() -> None:
    assert len(read_claims([claims_file(study) for study in CLAIMS])) == sum(
        map(len, CLAIMS.values())
    )


def test_claims_name_tables_and_columns_of_their_study() -> None:
    def columns(claim: Claim, table: str) -> set[str]:
        owner = CATALOGUE.study_of(claim.study, table)
        assert owner is not None, f"{claim.id}: no study writes {claim.study}/{table}.csv"
        return next(set(t.names) for t in STUDIES[owner].tables if t.stem == table)

    for study, claims in CLAIMS.items():
        for claim in claims:
            assert claim.study == STUDIES[study].place, claim.id
            first = columns(claim, claim.table)
            joined = columns(claim, claim.join.table) if claim.join else set()
            assert set(named_columns(claim)) <= first | joined, claim.id
            if claim.join:
                assert set(claim.join.on) <= first & joined, claim.id
            assert CATALOGUE.study_of(claim.study, claim.table) == study, claim.id
