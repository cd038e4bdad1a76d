"""Rule reference_behaviour: held-out answers of a tuned model and its unsafe references."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.paths import CACHE
    from actshift.studies.spectral_gap.behaviour import reference_behaviour

    reference_behaviour(
        run=snakemake.params.run,
        pair=snakemake.wildcards.pair,
        checkpoints={Path(f).name.rpartition(".")[2]: Path(f) for f in snakemake.input.checkpoints},
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless")},
        settings=snakemake.params.settings,
        dtype=snakemake.params.dtype,
        device=snakemake.config.get("device", "auto"),
        seed=snakemake.params.seed,
        code=snakemake.params.code,
        staging=CACHE / "interventions",
        out=Path(snakemake.output[0]),
    )
