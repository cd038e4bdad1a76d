"""What every rules file uses: the checked configuration, the plan, paths and code hashes.

Snakemake puts the folder of this file on the scripts' path, so `import actshift` also works in a
conda environment, which cannot hold an editable install.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
#: The same folder as inputs name it: Snakemake compares their names, and a moved folder is no change.
HERE = Path(os.path.relpath(ROOT))
sys.path.insert(0, str(ROOT / "workflow"))

from actshift.codehash import code
from actshift.config import parse_config
from actshift.device import device_is_cuda
from actshift.errors import UserError
from actshift.plan import Plan
from actshift.plan_tokens import token_notes

try:
    PLAN = Plan(parse_config(config, origin="config"))
    PLAN.check()
    # Not again in the process of every job: it reads whole vocabularies where they differ.
    for note in token_notes(PLAN) if workflow.is_main_process else []:
        print(f"actshift: warning: {note}", file=sys.stderr)
except UserError as error:
    sys.exit(f"actshift: {error}")

CONFIG = PLAN.config
PATHS = PLAN.paths
GPU = int(device_is_cuda(CONFIG.device))


wildcard_constraints:
    model=r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
    pair=r"[A-Za-z0-9_-]+",
    prompt_set=r"[A-Za-z0-9_-]+",
    recipe=r"[A-Za-z0-9_-]+",
    variant=r"[a-z_]+",
    template="raw|chat",


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
