"""refusal direction: a tuned model and prompts -> candidates, choice, held-out rows -> tables.

refusal_direction  checkpoint, prompts -> results/<run>/pairs/<pair>/refusal_direction
                   differences of means, three scores on `select`, choice, lanes on `heldout`
refusal_tables     all pairs' folders  -> results/<run>/tables/rank_audit/refusal_*.csv
"""


rule refusal_direction:
    input:
        checkpoint=PATHS.checkpoint("{pair}.tuned"),
        harmful=PATHS.prompts(CONFIG.rank_audit.harmful),
        harmless=PATHS.prompts(CONFIG.rank_audit.harmless),
    output:
        directory(PATHS.pair_tables("{pair}", "refusal_direction")),
    log:
        PATHS.log("refusal_direction", "{pair}"),
    benchmark:
        PATHS.timing("refusal_direction", "{pair}")
    priority: 25
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    threads: 1
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        settings=CONFIG.refusal_direction.model_dump(),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.refusal_direction.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/refusal_direction.py"


rule refusal_tables:
    input:
        [PATHS.pair_tables(pair.name, "refusal_direction") for pair in CONFIG.chosen_pairs],
    output:
        [
            PATHS.study_tables("rank_audit") / f"{name}.csv"
            for name in ("refusal_direction", "refusal_effect")
        ],
    log:
        PATHS.log("refusal_tables"),
    benchmark:
        PATHS.timing("refusal_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("refusal_direction"),
        zoo_sizes=PLAN.zoo_sizes(),
        seed=CONFIG.seed,
        code=code("studies.refusal_direction.join"),
        status=str(PATHS.status),
    script:
        "../scripts/refusal_tables.py"
