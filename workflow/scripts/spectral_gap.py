"""Rule spectral_gap: one pair's table."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake, joint=True):
    from actshift.stages.spectral_gap import spectral_gap_of_pair

    line = spectral_gap_of_pair(
        pair=snakemake.wildcards.pair,
        stores=[Path(store) for store in snakemake.input.stores],
        prompts=[Path(prompts) for prompts in snakemake.input.prompts],
        settings=snakemake.params.settings,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]),
    )
    print(line)
