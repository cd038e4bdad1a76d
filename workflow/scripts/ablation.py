"""Rule ablation: one pair's frames, lanes and answers."""

from pathlib import Path

from actshift.job import job

with job(snakemake):
    from actshift.paths import CACHE
    from actshift.studies.ablation.stage import PairInputs, ablation

    named, params = snakemake.input, snakemake.params
    pair = snakemake.wildcards.pair
    checkpoints = {role: Path(named[role]) for role in ("base", "tuned")}
    prompts = {name: Path(named[name]) for name in ("harmful", "harmless")}
    stores = [Path(store) for store in named.stores]
    ablation(
        PairInputs(params.run, pair, checkpoints, stores, prompts, params.zoo_size),
        settings=params.settings,
        openers=params.openers,
        **{name: params[name] for name in ("dtype", "seed", "code")},
        device=snakemake.config.get("device", "auto"),
        staging=CACHE / "interventions",
        out=Path(snakemake.output[0]),
    )
