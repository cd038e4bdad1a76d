"""Rule calibration_tables: every seed's rows, joined with the published ones."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.studies.calibration.join import calibration_tables

    rows = calibration_tables(
        folders=[Path(folder) for folder in snakemake.input.networks],
        published=Path(snakemake.input.published[0]).parent,
        ranks=snakemake.params.ranks,
        random_draws=snakemake.params.random_draws,
        out=Path(snakemake.output[0]).parent,
    )
    print(rows)
