"""Rules that name their stage: inputs by name, arguments, typed settings and the job's context."""

from pathlib import Path

from actshift.job import context_of, job

params = snakemake.params
with job(snakemake, joint=params.get("joint", False)):
    from actshift.studies.contract import named

    inputs = {
        name: Path(files) if isinstance(files, str) else [Path(file) for file in files]
        for name, files in snakemake.input.items()
    }
    named(params.stage)(
        inputs,
        settings=named(params.section).model_validate(params.settings),
        context=context_of(snakemake, staging=snakemake.rule),
        out=Path(snakemake.output[0]),
        **params.get("arguments", {}),
    )
