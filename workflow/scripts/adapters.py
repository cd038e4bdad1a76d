"""Rule adapters: one pair's LoRA adapters and their doses."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.studies.misalignment.stages.adapters import AdapterInputs, train_adapters

    params = snakemake.params
    told = ("zoo", "data", "given", "settings", "gate", "dtype", "seed", "code")
    train_adapters(
        AdapterInputs(
            snakemake.wildcards.pair,
            Path(snakemake.input.tuned),
            Path(snakemake.input.questions),
        ),
        **{name: params[name] for name in told},
        device=snakemake.config.get("device", "auto"),
        staging=CACHE / "adapters",
        out=Path(snakemake.output[0]),
    )
