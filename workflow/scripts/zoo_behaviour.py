"""Rule zoo_behaviour: what the zoo models do, with intervals and gates, and what training took."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.io.tables import write_table
    from actshift.stages.tables import collect_attempts, collect_behaviour

    named = snakemake.input
    rates = collect_behaviour([Path(rows) for rows in named.get("rows", [])])
    write_table(rates, Path(snakemake.output.rates))
    attempts = collect_attempts([Path(tried) for tried in named.get("tried", [])])
    write_table(attempts, Path(snakemake.output.attempts))
