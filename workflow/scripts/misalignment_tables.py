"""Rule misalignment_tables: all pairs' adapters, lanes and maps, with intervals and controls."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.misalignment.join import misalignment_tables

    named, folders = snakemake.input, snakemake.params.folders
    misalignment_tables(
        folders={
            stage: {pair: Path(folder) for pair, folder in of_stage.items()}
            for stage, of_stage in folders.items()
        },
        maps=Path(named.maps),
        questions=Path(named.questions),
        published=Path(named.published),
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]).parent,
    )
