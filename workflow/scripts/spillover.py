"""Rule spillover: what one pair's adapters answer, their states and directions."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.studies.misalignment.stages.spillover import SpilloverInputs, spillover

    named, params, pair = snakemake.input, snakemake.params, snakemake.wildcards.pair
    paths = {name: Path(named[name]) for name in ("tuned", "adapters", "questions", "neutral")}
    told = ("run", "zoo_size", "strict", "settings", "extract", "dtype", "seed", "code")
    spillover(
        SpilloverInputs(pair, **paths),
        **{name: params[name] for name in told},
        device=snakemake.config.get("device", "auto"),
        rows=Path(snakemake.output.rows),
        out=Path(snakemake.output.folder),
    )
