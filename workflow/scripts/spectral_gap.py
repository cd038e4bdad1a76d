"""Rule spectral_gap: one pair's table."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.spectral_gap.stage import spectral_gap_of_pair

    line = spectral_gap_of_pair(
        pair=snakemake.wildcards.pair,
        stores=[Path(store) for store in snakemake.input.stores],
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless")},
        eps=snakemake.params.eps,
        draws=snakemake.params.draws,
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]),
    )
    print(line)
