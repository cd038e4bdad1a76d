"""Rule adapters: one pair's LoRA adapters and their doses."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake):
    from actshift.stages.adapters import train_adapters

    params = snakemake.params
    train_adapters(
        pair=snakemake.wildcards.pair,
        checkpoint=Path(snakemake.input.tuned),
        **{name: params[name] for name in ("zoo", "data", "settings", "dtype", "seed", "code")},
        device=snakemake.config.get("device", "auto"),
        out=Path(snakemake.output[0]),
    )
