"""Rule steering: one pair's adapters under every edit within the model."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.misalignment.stages.steering import SteeringInputs, steering
    from actshift.studies.misalignment.study import Misalignment

    files = ("tuned", "adapters", "spillover", "questions")
    steering(
        SteeringInputs(**{name: Path(snakemake.input[name]) for name in files}),
        Misalignment(**snakemake.params.settings),
        context_of(snakemake, staging="steering"),
        out=Path(snakemake.output[0]),
    )
