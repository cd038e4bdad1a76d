"""Rule extract: one activation store; the model's other streams are a hint, hence the config."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.stages.extract import extract
    from actshift.stages.streams import settings_of, streams_of

    mine, siblings = streams_of(snakemake.config, Path(snakemake.output[0]))
    extract(
        mine,
        siblings,
        cache=CACHE / "activations",
        settings=settings_of(snakemake.config, mine.model),
        code=snakemake.params.code,
    )
