"""ablation: stores and models of a pair -> every answer under every ablation.

ablation  stores, prompts, both checkpoints -> results/<run>/pairs/<pair>/ablation
          frames on `fit`, lanes on `heldout` (and on `fit`, as published), losses on plain text
judge     answers, prompts -> results/<run>/tables/rank_audit/judge*.{csv,parquet}
          topicality for zoo pairs; a chat model where `judge.endpoint` names one, its replies kept
          in results/.cache/judge
"""


rule ablation:
    input:
        base=PATHS.checkpoint("{pair}.base"),
        tuned=PATHS.checkpoint("{pair}.tuned"),
        stores=lambda wildcards: PLAN.shift_stores(wildcards.pair),
        harmful=PATHS.prompts(CONFIG.conditions.harmful),
        harmless=PATHS.prompts(CONFIG.conditions.harmless),
        plain_text=PLAN.plain_text_inputs(),
    output:
        directory(PATHS.pair_tables("{pair}", "ablation")),
    log:
        PATHS.log("ablation", "{pair}"),
    benchmark:
        PATHS.timing("ablation", "{pair}")
    # The longest job of a pair: it starts before the short ones.
    priority: 25
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        stage="actshift.studies.ablation.stage:ablation",
        section="actshift.studies.ablation.study:Ablation",
        arguments={"openers": CONFIG.refusal_direction.openers},
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.ablation.model_dump(),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.ablation.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule judge:
    input:
        answers=[PATHS.pair_tables(pair.name, "ablation") for pair in CONFIG.chosen_pairs],
        prompts=[
            PATHS.prompts(name) for name in (CONFIG.conditions.harmful, CONFIG.conditions.harmless)
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
    params:
        judge="actshift.studies.ablation.judge:judge_answers",
        arguments={"zoo_sizes": PLAN.zoo_sizes()},
        pairs=PLAN.table_folders("ablation"),
        # How often and how patiently it is asked changes no verdict: the script takes that from
        # the configuration.
        settings=CONFIG.judge.model_dump(include={"endpoint", "model", "max_tokens"}),
        code=code("studies.ablation.judge"),
        status=str(PATHS.status),
    script:
        "../scripts/judge.py"
