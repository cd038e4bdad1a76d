"""Rule adapters: one pair's LoRA adapters and their doses."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.misalignment.stages.adapters import AdapterInputs, train_adapters
    from actshift.studies.misalignment.study import Misalignment

    named, params = snakemake.input, snakemake.params
    train_adapters(
        AdapterInputs(Path(named.tuned), Path(named.questions), params.zoo, params.given),
        Misalignment(**params.settings),
        context_of(snakemake, staging="adapters"),
        out=Path(snakemake.output[0]),
    )
