"""Rule claims: published claims, decided from the tables."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.stages.claims import make_claims

    make_claims(
        [Path(table) for table in snakemake.input.tables],
        [Path(claims) for claims in snakemake.input.claims],
        Path(snakemake.output[0]).parent,
        pairs=snakemake.params.pairs,
        larger_run=snakemake.params.larger_run,
        folders={
            study: {pair: Path(folder) for pair, folder in pairs.items()}
            for study, pairs in snakemake.params.folders.items()
        },
    )
