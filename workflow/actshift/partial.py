"""After a failure: tables, figures and page of the pairs that finished, and what failed.

`python -m actshift.partial ROOT < config.json`, run by the Snakefile's `onerror`.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from actshift.config.schema import Config
from actshift.engine.chat_judge import JudgeSettings
from actshift.engine.joining import join_context
from actshift.errors import UserError, refusal_of
from actshift.io.missed import kept_name
from actshift.io.tables import write_table
from actshift.plan.plan import Plan, number_folders
from actshift.report.run_record import read_failures
from actshift.stages.claims import claims_file, make_claims
from actshift.stages.figures import make_figures
from actshift.stages.report import make_report
from actshift.stages.tables import collect_attempts, collect_behaviour, make_tables
from actshift.studies.ablation.judge import judge_answers
from actshift.studies.localization.gate import collect_margins
from actshift.studies.registry import CATALOGUE, STUDIES


def partial_report(config: Config, *, root: Path) -> Path:
    """Make the joint tables, the figures and the page from what is there; returns its path.

    `root` is the folder of the Snakefile, which holds `resources`. The next run makes all of them
    again: their files are dated so that every input is newer.
    """
    plan = Plan(config)
    paths = plan.paths
    before = _dates(plan)
    _join(plan, root)
    _judge(plan)
    for place, collect, name in (
        (paths.zoo_rows, collect_behaviour, "zoo_behaviour"),
        (paths.zoo_tried, collect_attempts, "zoo_attempts"),
    ):
        places = [file for recipe in plan.zoo for file in _places(place(*recipe), paths.status)]
        files = sorted(file for file in places if file.is_file())
        write_table(collect(files), paths.tables / f"{name}.csv")
    _margins(plan)
    _claims(plan)
    make_figures(
        paths.tables,
        paths.root / "figures",
        studies=_studies_with_tables(plan),
        settings=plan.figure_settings(),
    )
    make_report(
        paths.root,
        paths.report,
        config=config.model_dump(mode="json", exclude={"device"}),
        failures=read_failures(paths.status),
        show_text=config.report.show_text,
    )
    _outdate(plan, before)
    return paths.report


def _dates(plan: Plan) -> dict[Path, int]:
    """When each table, figure and the page were last written, nanoseconds."""
    paths = plan.paths
    files = [paths.report, *paths.tables.rglob("*"), *(paths.root / "figures").rglob("*")]
    return {file: file.stat().st_mtime_ns for file in files if file.is_file()}


def _outdate(plan: Plan, before: dict[Path, int]) -> None:
    """Date what was written since then so that Snakemake takes it as older than its inputs.

    It has no record of these files, so nothing else would tell it that they are not finished: with
    the failed study switched off, say, the page would stay as it is for ever.
    """
    for file, date in _dates(plan).items():
        if before.get(file) != date:
            os.utime(file, (1, 1))


def _join(plan: Plan, root: Path) -> None:
    """Make the joint tables of every study from the pairs and seeds that finished."""
    for study in plan.config.studies:
        job = SimpleNamespace(**plan.table_job(study))
        published = [root / "resources" / "published" / name for name in STUDIES[study].published]
        context = join_context(job, published=published)
        folders = [folder for of_stage in context.folders.values() for folder in of_stage.values()]
        files = (file for file in context.files.values() if file.suffix)
        if not any(map(Path.is_dir, folders)) or not all(map(Path.is_file, files)):
            continue
        out = plan.paths.tables / STUDIES[study].place
        try:
            make_tables(job.join, context, tables=job.tables, out=out)
        except UserError as error:
            print(f"actshift: no joint tables of {study}: {error}")


def _judge(plan: Plan) -> None:
    """Judge the answers there are by topicality, where no chat judge is wanted.

    With one, the tables are left to its rule: tables made here, without asking it, would look done.
    """
    pairs = {name: Path(folder) for name, folder in plan.table_folders("ablation").items()}
    wanted = "ablation" in plan.config.studies and plan.config.judge.endpoint is None
    if wanted and any(folder.is_dir() for folder in pairs.values()):
        try:
            judge_answers(
                pairs=pairs,
                zoo_sizes=plan.zoo_sizes(),
                prompts=[],
                settings=JudgeSettings(),
                cache=plan.paths.root,  # not used: nothing is asked
                out=plan.paths.study_tables("rank_audit"),
            )
        except UserError as error:
            print(f"actshift: no tables of the judge: {error}")


def _margins(plan: Plan) -> None:
    """Collect the preference margins there are; a pair that missed the gate left them aside."""
    if "localization" not in plan.config.studies:
        return
    places = {
        pair.name: _places(plan.paths.margins(pair.name), plan.paths.status)
        for pair in plan.config.chosen_pairs
    }
    files = {
        name: file for name, copies in places.items() for file in reversed(copies) if file.is_file()
    }
    if files:
        table = collect_margins(files, seed=plan.config.seed)
        write_table(table, plan.paths.study_tables("localization") / "preference_margins.csv")


def _places(rows: Path, status: Path) -> tuple[Path, Path]:
    """Where the rows of a gate lie: in place, or kept beside the status of a failed job."""
    return rows, status / kept_name(rows)


def _studies_with_tables(plan: Plan) -> list[str]:
    """The run's studies of which at least one table exists; the audit's figures are always made."""
    tables = plan.paths.tables
    present = {
        CATALOGUE.owner(name) for name in CATALOGUE.tables if CATALOGUE.path(tables, name).is_file()
    } | {"rank_audit"}
    return [str(study) for study in plan.config.studies if study in present]


def _claims(plan: Plan) -> None:
    """Decide the claims from the tables there are; those without a table say so.

    What a study left that is now switched off is of an earlier run.
    """
    tables = plan.paths.tables
    chosen = plan.config.studies
    files = [
        path
        for path in sorted(tables.glob("*/*.csv"))
        if CATALOGUE.study_of(path.parent.name, path.stem) in (None, *chosen)
    ]
    pairs = [pair.name for pair in plan.config.chosen_pairs]
    try:
        make_claims(
            files,
            [claims_file(name) for name in STUDIES],
            tables,
            pairs=pairs,
            folders={
                study: {name: Path(folder) for name, folder in of_study.items()}
                for study, of_study in number_folders(plan).items()
            },
        )
    except UserError as error:
        # Verdicts of an earlier run must not stand beside the tables of this one.
        for name in ("claims.csv", "claims_by_pair.csv"):
            (tables / name).unlink(missing_ok=True)
        print(f"actshift: no claims: {error}")


def main() -> None:
    """Read the configuration from standard input and report what there is."""
    config = Config.model_validate(json.load(sys.stdin))
    try:
        partial_report(config, root=Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"actshift: no report: {error}")
    # What made a job fail, such as a full disk, often meets the report too.
    except Exception as error:
        refused = refusal_of(error, Plan(config).paths.root)
        if refused is None:
            raise
        sys.exit(f"actshift: no report: {refused}")


if __name__ == "__main__":
    main()
