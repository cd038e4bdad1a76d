"""Rules judge and misalignment_judge: answers judged by a chat model, or beside the keywords."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.engine.chat_judge import JudgeSettings
    from actshift.paths import CACHE
    from actshift.studies.contract import named

    params = snakemake.params
    patience = snakemake.config.get("judge") or {}
    named(params.judge)(
        pairs={pair: Path(folder) for pair, folder in params.pairs.items()},
        prompts=[Path(prompts) for prompts in snakemake.input.prompts],
        settings=JudgeSettings(**{**patience, **params.settings}),
        cache=CACHE / "judge",
        out=Path(snakemake.output.verdicts).parent,
        **params.arguments,
    )
