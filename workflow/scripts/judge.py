"""Rule judge: answers judged a second time, beside the keywords."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.engine.chat_judge import JudgeSettings
    from actshift.paths import CACHE
    from actshift.studies.ablation.judge import judge_answers

    patience = snakemake.config.get("judge") or {}
    judge_answers(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        zoo_sizes=snakemake.params.zoo_sizes,
        prompts=[Path(prompts) for prompts in snakemake.input.prompts],
        settings=JudgeSettings(**{**patience, **snakemake.params.settings}),
        cache=CACHE / "judge",
        out=Path(snakemake.output.verdicts).parent,
    )
