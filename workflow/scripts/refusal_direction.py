"""Rule refusal_direction: one tuned model's direction, its candidates and held-out rows."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.refusal_direction.stage import refusal_direction
    from actshift.studies.refusal_direction.study import RefusalDirection

    refusal_direction(
        checkpoint=Path(snakemake.input.checkpoint),
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless")},
        settings=RefusalDirection(**snakemake.params.settings),
        context=context_of(snakemake, staging="interventions"),
        out=Path(snakemake.output[0]),
    )
