"""Rule ablation_tables: all pairs' ablations, with their tests and controls."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.ablation.join import ablation_tables

    ablation_tables(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        zoo_sizes=snakemake.params.zoo_sizes,
        published=Path(snakemake.input.published[0]).parent,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]).parent,
    )
