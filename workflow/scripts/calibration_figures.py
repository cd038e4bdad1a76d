"""Rule calibration_figures: the study's figures, from its tables alone."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake):
    from actshift.stages.calibration_figures import make_calibration_figures

    make_calibration_figures(Path(snakemake.input[0]).parent, Path(snakemake.output[0]).parent)
