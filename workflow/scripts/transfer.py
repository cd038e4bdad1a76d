"""Rule transfer: one pair's insecure adapter under the mapped directions of all others."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.misalignment.stages.transfer import TransferInputs, transfer
    from actshift.studies.misalignment.study import Misalignment

    files = ("tuned", "adapters", "spillover", "maps", "questions")
    transfer(
        TransferInputs(**{name: Path(snakemake.input[name]) for name in files}),
        Misalignment(**snakemake.params.settings),
        context_of(snakemake, staging="transfer"),
        out=Path(snakemake.output[0]),
    )
