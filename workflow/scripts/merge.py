"""Rule merge: a pair's base with an adapter in its weights."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.edited import merge

    merge(
        snakemake.params.source,
        model=snakemake.wildcards.model,
        base=Path(snakemake.input.base),
        out=Path(snakemake.output[0]),
    )
