"""After a failure: tables, figures and page of the pairs that finished, and what failed.

`python -m actshift.partial ROOT < config.json`, run by the Snakefile's `onerror`.
"""

import json
import sys
from pathlib import Path

from actshift.adapter import read_failures
from actshift.config import Config
from actshift.errors import UserError
from actshift.io.tables import write_table
from actshift.plan import Plan
from actshift.stages.aggregate import aggregate_rank_audit
from actshift.stages.claims import make_claims
from actshift.stages.figures import make_figures
from actshift.stages.report import make_report
from actshift.stages.zoo_tables import collect_behaviour


def partial_report(config: Config, *, root: Path) -> Path:
    """Make the joint tables, the figures and the page from what is there.

    Args:
        config: the run's configuration.
        root: folder of the Snakefile, which holds `resources`.

    Returns:
        The page's path.
    """
    plan = Plan(config)
    paths = plan.paths
    folders = {name: Path(folder) for name, folder in plan.table_folders("rank_audit").items()}
    finished = [folder for folder in folders.values() if folder.is_dir()]
    if finished:
        aggregate_rank_audit(
            pairs=folders,
            published=root / "resources" / "published",
            out=paths.study_tables("rank_audit"),
        )
    rows = sorted(
        file
        for recipe, variant in plan.zoo
        for file in (paths.zoo_rows(recipe, variant), _rows_kept(plan, recipe, variant))
        if file.is_file()
    )
    write_table(collect_behaviour(rows), paths.tables / "zoo_behaviour.csv")
    _claims(plan, root)
    make_figures(paths.tables, paths.figures("rank_audit"))
    make_report(
        paths.root,
        paths.report,
        config=config.model_dump(mode="json", exclude={"device"}),
        failures=read_failures(paths.status),
        show_text=config.report.show_text,
    )
    return paths.report


def _claims(plan: Plan, root: Path) -> None:
    """Decide the claims from the tables there are; those without a table say so."""
    tables = plan.paths.tables
    pairs = [pair.name for pair in plan.config.chosen_pairs]
    try:
        make_claims(
            sorted(tables.glob("*/*.csv")), root / "resources" / "claims.yaml", tables, pairs=pairs
        )
    except UserError as error:
        # Verdicts of an earlier run must not stand beside the tables of this one.
        for name in ("claims.csv", "claims_by_pair.csv"):
            (tables / name).unlink(missing_ok=True)
        print(f"actshift: no claims: {error}")


def _rows_kept(plan: Plan, recipe: str, variant: str) -> Path:
    """Where the answers of a zoo model that missed its gate are kept."""
    return plan.paths.status / f"{recipe}.{variant}.behaviour.csv"


def main() -> None:
    """Read the configuration from standard input and report what there is."""
    config = Config.model_validate(json.load(sys.stdin))
    try:
        page = partial_report(config, root=Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"actshift: no report: {error}")
    failures = read_failures(Plan(config).paths.status)
    for failure in failures:
        print(f"actshift: {failure['rule']} {failure['job']}: {failure['message']}")
    print(f"actshift: {len(failures)} jobs failed; what finished is in {page}")


if __name__ == "__main__":
    main()
