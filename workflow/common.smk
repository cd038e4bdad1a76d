"""What every rules file uses: the checked configuration, the plan, paths and code hashes.

Snakemake puts the folder of this file on the scripts' path, so `import actshift` also works in a
conda environment, which cannot hold an editable install.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(workflow.basedir)
#: The same folder as inputs name it: Snakemake compares their names, and a moved folder is no change.
HERE = Path(os.path.relpath(ROOT))
sys.path.insert(0, str(ROOT / "workflow"))

from actshift.codehash import code, module_of
from actshift.config.schema import parse_config
from actshift.vocab import device_is_cuda
from actshift.errors import UserError
from actshift.plan.plan import Plan
from actshift.plan.files import refuse_files, warn_on_stderr

try:
    PLAN = Plan(parse_config(config, origin="config"))
    # A job reads the Snakefile again; what takes a moment was said by the first one.
    if workflow.is_main_process:
        refuse_files(PLAN, warn=warn_on_stderr, where_all="; all: actshift doctor CONFIG")
    PLAN.check()
except UserError as error:
    sys.exit(f"actshift: {error}")

CONFIG = PLAN.config
PATHS = PLAN.paths
GPU = int(device_is_cuda(CONFIG.device))
STARTED = time.time()


wildcard_constraints:
    model=r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
    pair=r"[A-Za-z0-9_-]+",
    prompt_set=r"[A-Za-z0-9_-]+",
    recipe=r"[A-Za-z0-9_-]+",
    variant=r"[a-z_]+",
    template="raw|chat",


def lift_default_limit() -> None:
    """Lift Snakemake's default limit of 100 job starts a second; one that the user sets stays.

    It makes the scheduler look again a second after every look: after a hundred jobs these are sixty
    looks a second, 15 % of a core for the rest of the run. Jobs here take seconds.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def partial_report() -> None:
    """After a failure: aggregate and report what the other pairs left, and say what failed."""
    # A subprocess, so that the driver never imports pandas or matplotlib.
    subprocess.run(
        [sys.executable, "-m", "actshift.partial", str(ROOT)],
        input=json.dumps(CONFIG.model_dump(mode="json")),
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )


def end_summary(*, failed: bool) -> None:
    """At the end of a run: what was missed, what failed, what was measured, time, disk, the page."""
    # Only here: a dry run has no end, and need not load it.
    from actshift.commands.summary import end_of_run

    config = CONFIG.model_dump(mode="json")
    end_of_run(PATHS.root, config=config, started=STARTED, failed=failed)
