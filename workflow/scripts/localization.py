"""Rule localization: one pair's patches, controls and block swaps."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.localization.stage import LocalizationInputs, localization
    from actshift.studies.localization.study import Localization

    named, params = snakemake.input, snakemake.params
    checkpoints = {role: Path(named[role]) for role in ("base", "tuned")}
    localization(
        LocalizationInputs(checkpoints, Path(named.preferences), params.gated, params.strict),
        settings=Localization(**params.settings),
        context=context_of(snakemake, staging="localization"),
        rows=Path(snakemake.output.rows),
        out=Path(snakemake.output.folder),
    )
