"""Rule misalignment_judge: alignment and coherence of the adapters' answers."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.engine.chat_judge import JudgeSettings
    from actshift.paths import CACHE
    from actshift.studies.misalignment.judge import judge_misalignment

    patience = snakemake.config.get("judge") or {}
    judge_misalignment(
        pairs={pair: Path(folder) for pair, folder in snakemake.params.pairs.items()},
        questions=Path(snakemake.input.questions),
        settings=JudgeSettings(**{**patience, **snakemake.params.settings}),
        cache=CACHE / "judge",
        out=Path(snakemake.output.verdicts).parent,
    )
