"""Rule rank_audit_aggregate: all pairs' tables, joined."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.rank_audit.join import aggregate_rank_audit

    aggregate_rank_audit(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        published=Path(snakemake.input.ranks).parent,
        out=Path(snakemake.output[0]).parent,
    )
