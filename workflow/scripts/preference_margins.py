"""Rule preference_margins: margins of every pair's two models."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.io.tables import write_table
    from actshift.studies.localization.gate import collect_margins

    files = dict(zip(snakemake.params.pairs, map(Path, snakemake.input), strict=True))
    table = collect_margins(files, seed=snakemake.params.seed)
    write_table(table, Path(snakemake.output[0]))
