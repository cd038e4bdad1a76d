"""Rule checkpoint: one model's folder and manifest."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.checkpoint import make_checkpoint

    make_checkpoint(
        snakemake.params.source,
        model=snakemake.wildcards.model,
        out=Path(snakemake.output[0]),
        made=Path(snakemake.params.made) if snakemake.params.made else None,
        dtype=snakemake.params.dtype,
    )
