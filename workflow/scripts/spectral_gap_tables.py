"""Rule spectral_gap_tables: all pairs' spectral gaps, and the summary beside the published one."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.spectral_gap.join import spectral_gap_tables

    spectral_gap_tables(
        gaps={pair: Path(folder) for pair, folder in snakemake.params.gaps.items()},
        behaviours={pair: Path(folder) for pair, folder in snakemake.params.behaviours.items()},
        zoo_sizes=snakemake.params.zoo_sizes,
        published=Path(snakemake.input.published).parent,
        out=Path(snakemake.output[0]).parent,
    )
