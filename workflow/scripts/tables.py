"""Rules <study>_tables: the joint tables of one study."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.engine.joining import join_context
    from actshift.stages.tables import make_tables

    params, out = snakemake.params, Path(snakemake.output[0]).parent
    context = join_context(params, published=[Path(file) for file in snakemake.input.published])
    print(make_tables(params.join, context, tables=params.tables, out=out))
