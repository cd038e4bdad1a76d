"""Rule localization_tables: all pairs' patches and swaps, with their intervals and controls."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.localization.join import localization_tables

    localization_tables(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        published=Path(snakemake.input.published),
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]).parent,
    )
