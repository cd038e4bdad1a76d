"""Where everything of a run lies: every path is named here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actshift.studies.contract import Study, Table

RESULTS = Path("results")
CACHE = RESULTS / ".cache"
#: The file of a run's folder that says what the run was, for programs.
RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of `results/<run>`; `{model}`-style wildcards may stand for any part."""

    run: str

    @property
    def root(self) -> Path:
        """The run's folder."""
        return RESULTS / self.run

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def first_page(self) -> Path:
        """The page of the study that is finished first."""
        return self.root / "rank_audit.html"

    @property
    def record(self) -> Path:
        """What the run was, measured, missed, failed and cost, for programs."""
        return self.root / RECORD

    @property
    def status(self) -> Path:
        """One JSON file for each job that failed with a message for the user."""
        return self.root / "status"

    @property
    def tables(self) -> Path:
        """All pairs' tables."""
        return self.root / "tables"

    @property
    def timings(self) -> Path:
        """What Snakemake measured of each job."""
        return self.root / "timings"

    def checkpoint(self, model: str) -> Path:
        """Checkpoint folder of `<pair>.<role>` or `<pair>.<reference>`."""
        return self.root / "checkpoints" / model

    def zoo(self, recipe: str, variant: str) -> Path:
        """Checkpoint folder that a zoo recipe trains."""
        return self.root / "zoo" / recipe / variant

    def zoo_rows(self, recipe: str, variant: str) -> Path:
        """What the trained model answered, a row a prompt."""
        return self.root / "zoo" / recipe / f"{variant}.behaviour.csv"

    def zoo_tried(self, recipe: str, variant: str) -> Path:
        """How often the checkpoint was trained until it cleared its gates, a row an attempt."""
        return self.root / "zoo" / recipe / f"{variant}.attempts.csv"

    def merged(self, model: str) -> Path:
        """The pair's base with an adapter merged into it, as a checkpoint folder."""
        return self.root / "merged" / model

    def abliterated(self, pair: str) -> Path:
        """The tuned model of a pair without its refusal direction, as a checkpoint folder."""
        return self.root / "pairs" / pair / "abliterated"

    def prompts(self, prompt_set: str) -> Path:
        """A prompt set."""
        return self.root / "prompts" / f"{prompt_set}.jsonl"

    def stream(self, model: str, prompt_set: str, template: str) -> Path:
        """Folder of an activation store and its manifest."""
        return self.root / "activations" / model / f"{prompt_set}.{template}"

    def pair_tables(self, pair: str, study: str) -> Path:
        """One pair's tables of one study."""
        return self.root / "pairs" / pair / study

    def margins(self, pair: str) -> Path:
        """Preference margins of a pair's two models, whether or not the gate is met."""
        return self.root / "pairs" / pair / "localization.margins.csv"

    def spillover_rows(self, pair: str) -> Path:
        """What a pair's adapters answered, whether the gate of `misalignment` is met or not."""
        return self.root / "pairs" / pair / "spillover.answers.csv"

    @property
    def ridge_maps(self) -> Path:
        """Maps between the activation spaces of all ordered pairs of models."""
        return self.root / "ridge_maps"

    def calibration(self, seed: int | str) -> Path:
        """The calibration networks of one seed and how their training ended."""
        return self.root / "calibration" / f"seed-{seed}"

    def study_tables(self, study: str) -> Path:
        """All pairs' tables of one study."""
        return self.tables / study

    def table(self, study: "Study", table: "Table") -> Path:
        """One joint table of a study."""
        return self.tables / study.place / f"{table.stem}.csv"

    def figures(self, study: str) -> Path:
        """Figures of one study."""
        return self.root / "figures" / study

    def log(self, rule: str, job: str = "all") -> Path:
        """A job's log."""
        return self.root / "logs" / rule / f"{job}.log"

    def timing(self, rule: str, job: str = "all") -> Path:
        """A job's wall time and peak memory, as Snakemake measured them."""
        return self.timings / rule / f"{job}.tsv"
