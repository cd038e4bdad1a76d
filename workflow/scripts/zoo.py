"""Rule zoo: train one tiny checkpoint and judge it."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.zoo import ZooFiles, train_zoo
    from actshift.zoo.judging import Identity

    given, made = snakemake.params, snakemake.output
    train_zoo(
        Identity(given.family, snakemake.wildcards.variant, given.size, given.seed),
        base=Path(snakemake.input.base) if snakemake.input.base else None,
        files=ZooFiles(Path(made.checkpoint), Path(made.rows), Path(made.tried)),
        gates=given.gates,
        strict=given.strict,
    )
