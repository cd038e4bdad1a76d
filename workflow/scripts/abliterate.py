"""Rule abliterate: the tuned model without its refusal direction."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.edited import abliterate

    abliterate(
        pair=snakemake.wildcards.pair,
        checkpoint=Path(snakemake.input.checkpoint),
        direction=Path(snakemake.input.direction),
        out=Path(snakemake.output[0]),
    )
