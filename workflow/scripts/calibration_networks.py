"""Rule calibration_networks: one seed's networks."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.studies.calibration.stage import train_calibration
    from actshift.studies.calibration.study import CalibrationEpochs

    train_calibration(
        seed=int(snakemake.wildcards.seed),
        epochs=CalibrationEpochs(**snakemake.params.epochs),
        out=Path(snakemake.output[0]),
    )
