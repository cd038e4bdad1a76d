"""Rule spillover: what one pair's adapters answer, their states and directions."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.misalignment.stages.spillover import SpilloverInputs, spillover
    from actshift.studies.misalignment.study import Misalignment

    files = ("tuned", "adapters", "questions", "neutral")
    spillover(
        SpilloverInputs(**{name: Path(snakemake.input[name]) for name in files}),
        Misalignment(**snakemake.params.settings),
        context_of(snakemake, staging="spillover"),
        strict=snakemake.params.strict,
        extract=snakemake.params.extract,
        rows=Path(snakemake.output.rows),
        out=Path(snakemake.output.folder),
    )
