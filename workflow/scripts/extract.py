"""Rule extract: one activation store, from what the rule names; siblings come from the config."""

from actshift.job import job

with job(snakemake):
    from actshift.engine.extract import extract, settings_from, stream_from
    from actshift.paths import CACHE
    from actshift.stages.streams import siblings_of

    mine = stream_from(
        snakemake.input, snakemake.wildcards, snakemake.params, out=snakemake.output[0]
    )
    extract(
        mine,
        siblings_of(snakemake.config, mine.out),
        cache=CACHE / "activations",
        settings=settings_from(snakemake.params, device=snakemake.config.get("device", "auto")),
        code=snakemake.params.code,
    )
