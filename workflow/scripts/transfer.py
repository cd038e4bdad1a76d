"""Rule transfer: one pair's insecure adapter under the mapped directions of all others."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.studies.misalignment.stages.transfer import TransferInputs, transfer

    named, params, pair = snakemake.input, snakemake.params, snakemake.wildcards.pair
    asked = ("tuned", "adapters", "spillover", "maps", "questions")
    told = ("run", "zoo_size", "settings", "dtype", "seed", "code")
    transfer(
        TransferInputs(pair, **{name: Path(named[name]) for name in asked}),
        **{name: params[name] for name in told},
        device=snakemake.config.get("device", "auto"),
        out=Path(snakemake.output[0]),
    )
