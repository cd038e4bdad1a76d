"""Rule reference_behaviour: held-out answers of a tuned model and its unsafe references."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake, joint=True):
    from actshift.studies.spectral_gap.behaviour import reference_behaviour
    from actshift.studies.spectral_gap.study import ReferenceAnswers

    reference_behaviour(
        checkpoints={Path(f).name.rpartition(".")[2]: Path(f) for f in snakemake.input.checkpoints},
        prompts={n: Path(snakemake.input[n]) for n in ("harmful", "harmless")},
        settings=ReferenceAnswers(**snakemake.params.settings),
        context=context_of(snakemake, staging="interventions"),
        out=Path(snakemake.output[0]),
    )
