"""Stage report: tables + figures of a run -> report.html and run.json."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.io.atomic import atomic_write_text, hash_json
from actshift.io.machine import read_machines
from actshift.paths import RECORD
from actshift.report.page import (
    Cells,
    FigureBlock,
    Missing,
    PageContent,
    ShowText,
    StudySection,
    cells_of,
    checkpoints,
    claim_rows,
    claims_line,
    claims_of,
    commit,
    examples,
    flat,
    gates_line,
    render_page,
    table_hashes,
    versions,
)
from actshift.report.point import Answer, Point
from actshift.report.run_record import (
    SCHEMA,
    PairFacts,
    missed_of_pair,
    missed_of_run,
    model_cells,
    models_line,
    pair_facts,
    run_record,
    timings,
)
from actshift.report.tables import Tables, load_tables
from actshift.stages.figures import alt_text, caption, title
from actshift.studies.contract import named
from actshift.studies.registry import CATALOGUE, STUDIES

_ANSWERS = {name: study.answers for name, study in STUDIES.items() if study.answers}
#: Studies whose pairs get an answer: without any of them no pair can be answered.
ANSWERING = tuple(name for name, answers in _ANSWERS.items() if answers.pairs_of)


def answer_pair(tables: Tables, pair: str) -> Answer:
    """A sentence for each study (a clause for each point that has one), and the points.

    Missing tables give points that say so.
    """
    points: list[Point] = []
    sentences: list[str] = []
    for of_study in _ANSWERS.values():
        if any(name in tables for name in of_study.asks):
            group = named(of_study.points)(tables, pair)
            text = "; ".join(point.clause for point in group if point.clause)
            sentences += [f"{text[0].upper()}{text[1:]}."] if text else []
            points += group
    sentence = " ".join(sentences) or "Its tables hold nothing to answer from."
    return Answer(pair, sentence, tuple(points))


def answers(tables: Tables, *, order: Sequence[str] = ()) -> list[Answer]:
    """One answer for each pair that an answering study has rows of, in the order wanted."""
    read = (answers.pairs_of for answers in _ANSWERS.values() if answers.pairs_of in tables)
    pairs = list(dict.fromkeys(str(pair) for name in read for pair in tables[name]["pair"]))
    ordered = [pair for pair in order if pair in pairs]
    return [answer_pair(tables, pair) for pair in ordered + [p for p in pairs if p not in ordered]]


#: What a chat model made of answers: a table of runs that name its endpoint.
JUDGED_TABLE = "judged"
_TEXT_NOTES: dict[str, str] = {
    "none": "Texts are not shown (show_text: none).",
    "redacted": "Texts are cut to their first words (show_text: redacted).",
    "full": "Answers of the zoo's models to generated prompts.",
}


def make_report(
    run_dir: Path,
    out: Path,
    *,
    config: Mapping[str, Any],
    failures: Sequence[Mapping[str, str]],
    show_text: ShowText = "full",
    origin: Mapping[str, str] | None = None,
    whole: str = "",
) -> None:
    """Write the page from whatever the run has, and run.json beside it.

    Args:
        run_dir: `results/<run>`, with `tables/` and `figures/<study>/`.
        out: the HTML file; `run.json` is written into its folder.
        config: the run's settings; results of studies and judges that they lack are not shown.
        failures: a mapping (rule, job, message) for each failed job.
        show_text: what is shown of the zoo models' answers; other models' are never shown.
        origin: provenance of the code; the commit it was checked out at where None.
        whole: name of the page that follows a first page, which has no claims and no run.json.

    Raises:
        UserError: a table or a manifest is damaged.
    """
    chosen = frozenset(config.get("studies", STUDIES))
    tables = _of_this_run(load_tables(run_dir / "tables", CATALOGUE), config, chosen)
    answered = not chosen.isdisjoint(ANSWERING)
    pairs = pair_facts(run_dir, config)
    wanted = [pair.pair for pair in pairs] if answered else []
    answered_pairs = answers(tables, order=wanted)
    code = dict(commit() if origin is None else origin) | versions()
    content = PageContent(
        run=str(config.get("run", run_dir.name)),
        whole=whole,
        models_line=models_line(pairs),
        models=model_cells(pairs),
        missed=missed_of_run(run_dir, pairs, chosen, CATALOGUE),
        answers=answered_pairs,
        answered=answered,
        **({} if whole else _claims(tables, chosen)),
        missing=_missing(run_dir, wanted, answered_pairs, failures, chosen),
        gates=gates_line(tables.get("zoo_behaviour")),
        failures=failures,
        studies=_studies(run_dir, tables, chosen),
        tables=_tables(tables, None),
        examples=_cells("Sample answers", "zoo/", examples(run_dir, show_text=show_text)),
        text_note=_TEXT_NOTES[show_text],
        provenance={
            "Code": code,
            "Settings": flat(config),
            "Tables, sha256": table_hashes(run_dir),
        },
        checkpoints=_cells("Checkpoints", "checkpoints/", checkpoints(run_dir)),
        timings=timings(run_dir),
        machines=read_machines(run_dir),
    )
    atomic_write_text(out, render_page(content))
    if not whole:
        _write_record(run_dir, out.with_name(RECORD), config, code, pairs, failures)
    print(f"report {out}: {len(answered_pairs)} pairs answered, {len(failures)} jobs failed")


def _claims(tables: Tables, chosen: Collection[str]) -> dict[str, Any]:
    """What the page says of the published claims of the chosen studies."""
    table = tables.get("claims")
    claims = claim_rows(claims_of(table, chosen, CATALOGUE))
    others = 0 if table is None else len(table) - len(claims)
    return {"claims": claims, "claims_line": claims_line(claims), "other_claims": others}


def _of_this_run(
    tables: Tables, config: Mapping[str, Any], chosen: Collection[str]
) -> dict[str, pd.DataFrame]:
    """Without the tables of studies, and of a judge, that only an earlier run asked for."""
    endpoint = (config.get("judge") or {}).get("endpoint")
    return {
        name: table
        for name, table in tables.items()
        if CATALOGUE.owner(name) in (*chosen, None) and (endpoint or name != JUDGED_TABLE)
    }


def _write_record(
    run_dir: Path,
    file: Path,
    config: Mapping[str, Any],
    code: Mapping[str, str],
    pairs: Sequence[PairFacts],
    failures: Sequence[Mapping[str, str]],
) -> None:
    """Write run.json: what this run was, measured, missed, failed and cost, for programs."""
    record = {
        "schema": SCHEMA,
        "run": str(config.get("run", run_dir.name)),
        "code": dict(code),
        "config_sha256": hash_json(config),
        "settings": config,
        "machines": read_machines(run_dir),
        **run_record(
            run_dir,
            pairs=pairs,
            studies=config.get("studies", list(STUDIES)),
            catalogue=CATALOGUE,
            failures=failures,
        ),
    }
    atomic_write_text(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _missing(
    run_dir: Path,
    wanted: Sequence[str],
    answered: Sequence[Answer],
    failures: Sequence[Mapping[str, str]],
    studies: Collection[str],
) -> list[Missing]:
    """Pairs without an answer, with the gates they missed and the failures whose job names them."""
    have = {answer.pair for answer in answered}
    missing = []
    for pair in wanted:
        if pair not in have:
            gates = missed_of_pair(run_dir, pair, studies, CATALOGUE)
            reasons = [f"{missed.subject}: {missed.reason}." for missed in gates]
            # The job of a failure is such as `model=llama.base`.
            name = re.compile(rf"(?<!\w){re.escape(pair)}(?!\w)")
            reasons += [f["message"] for f in failures if name.search(f.get("job", ""))]
            missing.append(Missing(pair, tuple(reasons)))
    return missing


def _studies(run_dir: Path, tables: Tables, chosen: Collection[str]) -> list[StudySection]:
    """The chosen studies that left a figure or a table, in the order of the page."""
    sections = [
        StudySection(
            name, spec.title, spec.about, _figures(run_dir, tables, name), _tables(tables, name)
        )
        for name, spec in STUDIES.items()
        if name in chosen
    ]
    return [section for section in sections if section.figures or section.tables]


def _figures(run_dir: Path, tables: Tables, study: str) -> list[FigureBlock]:
    """The figure files of a study that exist, in the order of the list."""
    files = {name: f"figures/{study}/{name}.svg" for name in CATALOGUE.names([study])}
    return [
        FigureBlock(
            name=name,
            title=title(name),
            caption=caption(name, tables),
            alt=alt_text(name, tables),
            svg=(run_dir / file).read_bytes(),
            path=file,
        )
        for name, file in files.items()
        if (run_dir / file).is_file()
    ]


def _tables(tables: Tables, study: str | None) -> list[Cells]:
    """Every table of a study (None: of the run) as cells, with its file's name."""
    return [
        cells_of(
            CATALOGUE.tables[name].stem, CATALOGUE.path(Path("tables"), name).as_posix(), table
        )
        for name, table in tables.items()
        if CATALOGUE.owner(name) == study
    ]


def _cells(name: str, path: str, table: pd.DataFrame) -> Cells | None:
    """A table as cells, or nothing without rows."""
    return None if table.empty else cells_of(name, path, table)
