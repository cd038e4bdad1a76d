"""A copy of the workflow in a scratch folder, run as a user would run it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "config", "envs", "profiles", "resources", "workflow")


@dataclass(frozen=True)
class Clone:
    """A clone of the workflow; runs happen inside it."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "Clone":
        root.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignore = shutil.ignore_patterns("*.egg-info")
                shutil.copytree(source, root / part, ignore=ignore)
            else:
                shutil.copy2(source, root / part)
        return cls(root)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *options]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "workflow"), "HF_HUB_OFFLINE": "1"}

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run snakemake; stdout and stderr come back joined."""
        return subprocess.run(
            self.command(*options),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def planned(self, *options: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans."""
        done = self.run("-n", *options)
        assert done.returncode == 0, done.stdout
        return jobs_in(done.stdout)

    def write_config(self, name: str, config: dict[str, object]) -> str:
        (self.root / name).write_text(yaml.safe_dump(config))
        return name


def jobs_in(output: str) -> dict[str, int]:
    """Read the last `Job stats` table of Snakemake's output."""
    if "Job stats:" not in output:
        return {}
    lines = output.split("Job stats:")[-1].splitlines()[3:]
    table = [line.split() for line in lines]
    rows = table[: next(i for i, row in enumerate(table) if row[:1] == ["total"])]
    return {rule: int(count) for rule, count in rows}


def micro_config() -> dict[str, object]:
    return yaml.safe_load((Path(__file__).parent / "micro.yaml").read_text())
