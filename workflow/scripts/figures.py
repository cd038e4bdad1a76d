"""Rules figures and first_figures: every figure of some studies, from tables alone."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.stages.figures import make_figures

    make_figures(
        Path(snakemake.input[0]).parent,
        Path(snakemake.output[0]).parents[1],
        studies=snakemake.params.studies,
        settings=snakemake.params.settings,
        processes=snakemake.threads,
    )
