"""Rule prompts: one prompt set."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.stages.prompts import make_prompts

    print("\n".join(make_prompts(snakemake.params.spec, Path(snakemake.output[0]))))
