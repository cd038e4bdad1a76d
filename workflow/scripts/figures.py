"""Rule figures: every figure, from tables alone."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake):
    from actshift.stages.figures import make_figures

    make_figures(Path(snakemake.input[0]).parent, Path(snakemake.output[0]).parent)
