"""Rule refusal_direction: one tuned model's direction, its candidates and held-out rows."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.studies.refusal_direction.stage import refusal_direction

    refusal_direction(
        run=snakemake.params.run,
        pair=snakemake.wildcards.pair,
        checkpoint=Path(snakemake.input.checkpoint),
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless")},
        settings=snakemake.params.settings,
        dtype=snakemake.params.dtype,
        device=snakemake.config.get("device", "auto"),
        seed=snakemake.params.seed,
        code=snakemake.params.code,
        staging=CACHE / "interventions",
        out=Path(snakemake.output[0]),
    )
