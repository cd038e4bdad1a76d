"""Rule steering: one pair's adapters under every edit within the model."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.studies.misalignment.stages.steering import SteeringInputs, steering

    named, params, pair = snakemake.input, snakemake.params, snakemake.wildcards.pair
    paths = {name: Path(named[name]) for name in ("tuned", "adapters", "spillover", "questions")}
    told = ("run", "zoo_size", "settings", "dtype", "seed", "code")
    steering(
        SteeringInputs(pair, **paths),
        **{name: params[name] for name in told},
        device=snakemake.config.get("device", "auto"),
        staging=CACHE / "steering",
        out=Path(snakemake.output[0]),
    )
