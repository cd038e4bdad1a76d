"""Rule refusal_tables: all pairs' refusal directions, and what they do held out."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.refusal_direction.join import refusal_tables

    refusal_tables(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        zoo_sizes=snakemake.params.zoo_sizes,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]).parent,
    )
