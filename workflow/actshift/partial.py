"""After a failure: tables, figures and page of the pairs that finished, and what failed.

`python -m actshift.partial ROOT < config.json`, run by the Snakefile's `onerror`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from actshift.config.schema import Config
from actshift.errors import UserError, refusal_of
from actshift.io.missed import kept_name
from actshift.io.tables import write_table
from actshift.plan.gates import study_folders
from actshift.plan.plan import Plan
from actshift.report.catalogue import TABLES, study_of
from actshift.report.run_record import read_failures
from actshift.report.tables import table_path
from actshift.stages.claims import make_claims
from actshift.stages.figures import make_figures
from actshift.stages.report import make_report
from actshift.stages.zoo_tables import collect_attempts, collect_behaviour
from actshift.studies.ablation.join import ablation_tables
from actshift.studies.ablation.judge_stage import JudgeSettings, judge_answers
from actshift.studies.calibration.join import calibration_tables
from actshift.studies.localization.join import localization_tables
from actshift.studies.localization.margins import collect_margins
from actshift.studies.misalignment.join import misalignment_tables
from actshift.studies.misalignment.kinds import STAGES
from actshift.studies.rank_audit.join import aggregate_rank_audit
from actshift.studies.refusal_direction.join import refusal_tables
from actshift.studies.spectral_gap.join import spectral_gap_tables


def partial_report(config: Config, *, root: Path) -> Path:
    """Make the joint tables, the figures and the page from what is there.

    The next run makes all of them again: their files are dated so that every input is newer.

    Args:
        config: the run's configuration.
        root: folder of the Snakefile, which holds `resources`.

    Returns:
        The page's path.
    """
    plan = Plan(config)
    paths = plan.paths
    before = _dates(plan)
    _join(plan, root / "resources" / "published")
    _join_adapters(plan, root / "resources" / "published")
    _judge(plan)
    for place, collect, name in (
        (paths.zoo_rows, collect_behaviour, "zoo_behaviour"),
        (paths.zoo_tried, collect_attempts, "zoo_attempts"),
    ):
        places = [one for recipe in plan.zoo for one in _places(place(*recipe), paths.status)]
        files = sorted(file for file in places if file.is_file())
        write_table(collect(files), paths.tables / f"{name}.csv")
    _margins(plan)
    _claims(plan, root)
    make_figures(paths.tables, paths.root / "figures", studies=_studies_with_tables(plan))
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
    found = [paths.report, *paths.tables.rglob("*"), *(paths.root / "figures").rglob("*")]
    return {file: file.stat().st_mtime_ns for file in found if file.is_file()}


def _outdate(plan: Plan, before: dict[Path, int]) -> None:
    """Date what was written since then so that Snakemake takes it as older than its inputs.

    It has no record of these files, so nothing else would tell it that they are not finished: with
    the failed study switched off, say, the page would stay as it is for ever.
    """
    for file, date in _dates(plan).items():
        if before.get(file) != date:
            os.utime(file, (1, 1))


def _join(plan: Plan, published: Path) -> None:
    """Make the joint tables of every study from the pairs and seeds that finished."""
    config, paths = plan.config, plan.paths
    out = paths.study_tables("rank_audit")
    pairs = {
        study: {name: Path(folder) for name, folder in plan.table_folders(study).items()}
        for study in ("rank_audit", "refusal_direction", "ablation", "spectral_gap", "localization")
    }
    judged = {"zoo_sizes": plan.zoo_sizes(), "seed": config.seed, "out": out}
    seeds = [paths.calibration(seed) for seed in config.calibration.seeds]
    trained = [folder for folder in seeds if folder.is_dir()]
    joins: dict[str, Callable[[], object]] = {
        "rank_audit": lambda: aggregate_rank_audit(
            pairs=pairs["rank_audit"], published=published, out=out
        ),
        "refusal_direction": lambda: refusal_tables(pairs=pairs["refusal_direction"], **judged),
        "ablation": lambda: ablation_tables(pairs=pairs["ablation"], published=published, **judged),
        "spectral_gap": lambda: spectral_gap_tables(
            gaps=pairs["spectral_gap"],
            behaviours={
                name: Path(folder)
                for name, folder in plan.table_folders("reference_behaviour").items()
            },
            zoo_sizes=plan.zoo_sizes(),
            published=published,
            out=out,
        ),
        "localization": lambda: localization_tables(
            pairs=pairs["localization"],
            published=published / "headline.csv",
            seed=config.seed,
            out=paths.study_tables("localization"),
        ),
        "calibration": lambda: calibration_tables(
            folders=trained,
            published=published,
            ranks=config.calibration.ablation_ranks,
            random_draws=config.calibration.random_draws,
            out=paths.study_tables("calibration"),
        ),
    }
    for study, join in joins.items():
        finished = trained if study == "calibration" else pairs[study].values()
        if study in config.studies and any(folder.is_dir() for folder in finished):
            try:
                join()
            except UserError as error:
                print(f"actshift: no joint tables of {study}: {error}")


def _join_adapters(plan: Plan, published: Path) -> None:
    """Make the joint tables of study B from whatever stage of whatever pair finished."""
    config, paths = plan.config, plan.paths
    folders = {
        stage: {name: Path(folder) for name, folder in plan.table_folders(stage).items()}
        for stage in STAGES
    }
    finished = any(one.is_dir() for own in folders.values() for one in own.values())
    questions = paths.prompts(config.misalignment.questions)
    if "misalignment" not in config.studies or not finished or not questions.is_file():
        return
    try:
        misalignment_tables(
            folders=folders,
            maps=paths.ridge_maps,
            questions=questions,
            published=published / "headline.csv",
            seed=config.seed,
            out=paths.study_tables("misalignment"),
        )
    except UserError as error:
        print(f"actshift: no joint tables of misalignment: {error}")


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
        name: file for name, found in places.items() for file in reversed(found) if file.is_file()
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
    found = {
        known.study for name, known in TABLES.items() if table_path(tables, name).is_file()
    } | {"rank_audit"}
    return [study for study in plan.config.studies if study in found]


def _claims(plan: Plan, root: Path) -> None:
    """Decide the claims from the tables there are; those without a table say so.

    What a study left that is now switched off is of an earlier run.
    """
    tables = plan.paths.tables
    chosen = plan.config.studies
    found = [
        path
        for path in sorted(tables.glob("*/*.csv"))
        if study_of(path.parent.name, path.stem) in (None, *chosen)
    ]
    pairs = [pair.name for pair in plan.config.chosen_pairs]
    try:
        make_claims(
            found,
            root / "resources" / "claims.yaml",
            tables,
            pairs=pairs,
            folders={
                study: {name: Path(folder) for name, folder in of_study.items()}
                for study, of_study in study_folders(plan).items()
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
