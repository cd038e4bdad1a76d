"""Rule rank_audit: one pair's tables."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.studies.rank_audit.stage import rank_audit
    from actshift.studies.rank_audit.study import RankAudit

    lines = rank_audit(
        pair=snakemake.wildcards.pair,
        stores=[Path(store) for store in snakemake.input.stores],
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless", "concepts")},
        settings=RankAudit(**snakemake.params.settings),
        seed=snakemake.params.seed,
        out=Path(snakemake.output[0]),
    )
    print("\n".join(lines))
