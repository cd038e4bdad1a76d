"""Rule ablation_tables: all pairs' ablations, with their tests and controls."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake, joint=True):
    from actshift.stages.ablation_tables import ablation_tables

    ablation_tables(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        zoo_sizes=snakemake.params.zoo_sizes,
        published=Path(snakemake.input.published[0]).parent,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]).parent,
    )
