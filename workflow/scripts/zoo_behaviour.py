"""Rule zoo_behaviour: what the zoo models do, with intervals and gates."""

from pathlib import Path

from actshift.adapter import job

with job(snakemake):
    from actshift.io.tables import write_table
    from actshift.stages.zoo_tables import collect_behaviour

    write_table(
        collect_behaviour([Path(rows) for rows in snakemake.input]), Path(snakemake.output[0])
    )
