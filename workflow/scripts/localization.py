"""Rule localization: one pair's patches, controls and block swaps."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.studies.localization.stage import LocalizationInputs, localization

    named, params, pair = snakemake.input, snakemake.params, snakemake.wildcards.pair
    checkpoints = {role: Path(named[role]) for role in ("base", "tuned")}
    localization(
        LocalizationInputs(pair, checkpoints, Path(named.preferences)),
        settings=params.settings,
        **{name: params[name] for name in ("gated", "strict", "dtype", "seed", "code")},
        device=snakemake.config.get("device", "auto"),
        staging=CACHE / "localization",
        rows=Path(snakemake.output.rows),
        out=Path(snakemake.output.folder),
    )
