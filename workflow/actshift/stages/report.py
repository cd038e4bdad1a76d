"""Stage report: tables + figures of a run -> report.html and run.json."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.io.atomic import atomic_write_text
from actshift.io.hashing import hash_json
from actshift.io.machine import read_machines
from actshift.paths import RECORD
from actshift.report.cells import Cells, cells_of
from actshift.report.claim_rows import claim_rows, claims_line, claims_of
from actshift.report.examples import ShowText, examples
from actshift.report.page import (
    FigureBlock,
    Missing,
    PageContent,
    StudySection,
    gates_line,
    render_page,
)
from actshift.report.pair_facts import (
    PairFacts,
    chosen_pairs,
    model_cells,
    models_line,
    pair_facts,
)
from actshift.report.point import Answer
from actshift.report.provenance import checkpoints, commit, flat, table_hashes, versions
from actshift.report.run_record import (
    SCHEMA,
    missed_of_pair,
    missed_of_run,
    run_record,
    timings,
)
from actshift.report.tables import Tables, load_tables
from actshift.stages.answering import ANSWERING, answers
from actshift.stages.drawing import alt_text, caption, title
from actshift.studies.registry import CATALOGUE, STUDIES

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
    """Write the page from whatever the run has: some pairs, all, or none; and run.json beside it.

    Args:
        run_dir: `results/<run>`, with `tables/` and `figures/<study>/`.
        out: the HTML file, written whole or not at all; `run.json` is written into its folder.
        config: the run's settings as a plain mapping, shown as they are; what a study left that its
            `studies` do not name is of an earlier run and is not shown, nor is what a chat judge
            said where no `judge.endpoint` is set.
        failures: a mapping (rule, job, message) for each failed job.
        show_text: what is shown of the zoo models' answers; other models' are never shown.
        origin: provenance of the code; the commit it was checked out at where None.
        whole: name of the page that follows, where this one is written while the run goes on: it
            has no claims, which are decided at the end, and no run.json.

    Raises:
        UserError: a table or a manifest is damaged.
    """
    chosen = frozenset(config.get("studies", STUDIES))
    tables = _of_this_run(load_tables(run_dir / "tables", CATALOGUE), config, chosen)
    answered = not chosen.isdisjoint(ANSWERING)
    pairs = pair_facts(run_dir, chosen_pairs(config))
    wanted = [pair.pair for pair in pairs] if answered else []
    answered_pairs = answers(tables, order=wanted)
    every = None if whole else tables.get("claims")
    claims = claim_rows(claims_of(every, chosen, CATALOGUE))
    code = dict(commit() if origin is None else origin) | versions()
    content = PageContent(
        run=str(config.get("run", run_dir.name)),
        whole=whole,
        models_line=models_line(pairs),
        models=model_cells(pairs),
        missed=missed_of_run(run_dir, pairs, chosen, CATALOGUE),
        answers=answered_pairs,
        answered=answered,
        claims=claims,
        claims_line=claims_line(claims),
        other_claims=0 if every is None else len(every) - len(claims),
        missing=_missing(run_dir, wanted, answered_pairs, failures, chosen),
        gates=gates_line(tables.get("zoo_behaviour")),
        failures=failures,
        studies=_studies(run_dir, tables, chosen),
        tables=_tables(tables, None),
        examples=_examples(run_dir, show_text),
        text_note=_TEXT_NOTES[show_text],
        provenance=_provenance(run_dir, config, code),
        checkpoints=_checkpoints(run_dir),
        timings=timings(run_dir),
        machines=read_machines(run_dir),
    )
    atomic_write_text(out, render_page(content))
    if not whole:
        _write_record(run_dir, out.with_name(RECORD), config, code, pairs, failures)
    print(f"report {out}: {len(answered_pairs)} pairs answered, {len(failures)} jobs failed")


def _of_this_run(
    tables: Tables, config: Mapping[str, Any], chosen: Collection[str]
) -> dict[str, pd.DataFrame]:
    """Without the tables of studies, and of a judge, that only an earlier run asked for."""
    asked = (config.get("judge") or {}).get("endpoint")
    return {
        name: table
        for name, table in tables.items()
        if CATALOGUE.owner(name) in (*chosen, None) and (asked or name != JUDGED_TABLE)
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
    return [
        Missing(pair, (*_gates(run_dir, pair, studies), *_failed(failures, pair)))
        for pair in wanted
        if pair not in have
    ]


def _gates(run_dir: Path, pair: str, studies: Collection[str]) -> list[str]:
    """The gates that a pair missed: whose, by how much."""
    return [
        f"{missed.subject}: {missed.reason}."
        for missed in missed_of_pair(run_dir, pair, studies, CATALOGUE)
    ]


def _failed(failures: Sequence[Mapping[str, str]], pair: str) -> list[str]:
    """The reasons of the failed jobs that name a pair."""
    return [failure["message"] for failure in failures if _names(failure.get("job", ""), pair)]


def _names(job: str, pair: str) -> bool:
    """Whether a job such as `model=llama.base` is about the pair."""
    return re.search(rf"(?<!\w){re.escape(pair)}(?!\w)", job) is not None


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
    blocks = []
    for name in CATALOGUE.names([study]):
        path = run_dir / "figures" / study / f"{name}.svg"
        if path.is_file():
            place = path.relative_to(run_dir).as_posix()
            blocks.append(
                FigureBlock(
                    name,
                    title(name),
                    caption(name, tables),
                    alt_text(name, tables),
                    path.read_bytes(),
                    place,
                )
            )
    return blocks


def _tables(tables: Tables, study: str | None) -> list[Cells]:
    """Every table of a study (None: of the run) as cells, with its file's name."""
    return [
        cells_of(
            CATALOGUE.tables[name].stem, CATALOGUE.path(Path("tables"), name).as_posix(), table
        )
        for name, table in tables.items()
        if CATALOGUE.owner(name) == study
    ]


def _provenance(
    run_dir: Path, config: Mapping[str, Any], code: Mapping[str, str]
) -> dict[str, Mapping[str, str]]:
    """Code, settings and tables: what equal runs agree on."""
    return {"Code": code, "Settings": flat(config), "Tables, sha256": table_hashes(run_dir)}


def _checkpoints(run_dir: Path) -> Cells | None:
    """Facts of the run's checkpoints, or nothing."""
    table = checkpoints(run_dir)
    return None if table.empty else cells_of("Checkpoints", "checkpoints/", table)


def _examples(run_dir: Path, show_text: ShowText) -> Cells | None:
    """Sample answers of the zoo, or nothing."""
    table = examples(run_dir, show_text=show_text)
    return None if table.empty else cells_of("Sample answers", "zoo/", table)
