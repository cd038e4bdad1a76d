"""Rule zoo: train one tiny checkpoint and judge it."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.zoo import train_zoo

    train_zoo(
        family=snakemake.params.family,
        variant=snakemake.wildcards.variant,
        size=snakemake.params.size,
        seed=snakemake.params.seed,
        base=Path(snakemake.input.base) if snakemake.input.base else None,
        out=Path(snakemake.output.checkpoint),
        rows=Path(snakemake.output.rows),
        tried=Path(snakemake.output.tried),
        gates=snakemake.params.gates,
        strict=snakemake.params.strict,
    )
