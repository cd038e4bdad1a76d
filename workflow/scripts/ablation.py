"""Rule ablation: one pair's frames, lanes and answers."""

from pathlib import Path

from actshift.job import context_of, job

with job(snakemake):
    from actshift.studies.ablation.stage import PairInputs, ablation
    from actshift.studies.ablation.study import Ablation

    named, params = snakemake.input, snakemake.params
    checkpoints = {role: Path(named[role]) for role in ("base", "tuned")}
    prompts = {name: Path(named[name]) for name in ("harmful", "harmless")}
    ablation(
        PairInputs(checkpoints, [Path(store) for store in named.stores], prompts),
        settings=Ablation(**params.settings),
        openers=params.openers,
        context=context_of(snakemake, staging="interventions"),
        out=Path(snakemake.output[0]),
    )
