"""judge: the ablation's answers a second time -> tables of keywords against judges.

judge  all pairs' answers, prompts -> results/<run>/tables/rank_audit/judge*.{csv,parquet}
       topicality for zoo pairs; a chat model where `judge.endpoint` names one, its replies cached
       in results/.cache/judge
"""


rule judge:
    input:
        answers=[PATHS.pair_tables(pair.name, "ablation") for pair in CONFIG.chosen_pairs],
        prompts=[
            PATHS.prompts(name) for name in (CONFIG.rank_audit.harmful, CONFIG.rank_audit.harmless)
        ],
    output:
        tables=[
            PATHS.study_tables("rank_audit") / f"{name}.csv"
            for name in ("judge", "judge_agreement")
        ],
        verdicts=PATHS.study_tables("rank_audit") / "judge_rows.parquet",
    log:
        PATHS.log("judge"),
    benchmark:
        PATHS.timing("judge")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("ablation"),
        zoo_sizes=PLAN.zoo_sizes(),
        # How often and how patiently it is asked changes no verdict: the script takes that from
        # the configuration.
        settings=CONFIG.judge.model_dump(include={"endpoint", "model", "max_tokens"}),
        code=code("studies.ablation.judge_stage"),
        status=str(PATHS.status),
    script:
        "../scripts/judge.py"
