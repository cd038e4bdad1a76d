"""Rule ridge_maps: a map for every ordered pair of models, from stored activations."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.studies.misalignment.stages.ridge_maps import ridge_maps
    from actshift.studies.misalignment.study import Misalignment

    params = snakemake.params
    ridge_maps(
        pairs={pair: Path(folder) for pair, folder in params.pairs.items()},
        neutral=Path(snakemake.input.neutral),
        families=params.families,
        settings=Misalignment(**params.settings),
        seed=params.seed,
        out=Path(snakemake.output[0]),
    )
