"""spectral gap: a pair and its unsafe references -> kappa by layer, and what they answer.

abliterate           tuned checkpoint, direction -> results/<run>/pairs/<pair>/abliterated
                     the refusal direction taken out of the weights: an ordinary checkpoint
reference_behaviour  tuned model, references     -> results/<run>/pairs/<pair>/reference_behaviour
                     held-out prompts, one Parquet file of answers a model
spectral_gap         stores of pair, references  -> results/<run>/pairs/<pair>/spectral_gap
spectral_gap_tables  all pairs' folders          -> results/<run>/tables/rank_audit/spectral_gap*.csv
"""


rule abliterate:
    input:
        checkpoint=PATHS.checkpoint("{pair}.tuned"),
        direction=PATHS.pair_tables("{pair}", "refusal_direction"),
    output:
        directory(PATHS.abliterated("{pair}")),
    log:
        PATHS.log("abliterate", "{pair}"),
    benchmark:
        PATHS.timing("abliterate", "{pair}")
    priority: 25
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        code=code("stages.abliterate"),
        status=str(PATHS.status),
    script:
        "../scripts/abliterate.py"


rule reference_behaviour:
    input:
        checkpoints=lambda wildcards: [
            PATHS.checkpoint(model)
            for model in [f"{wildcards.pair}.tuned", *PLAN.references(wildcards.pair)]
        ],
        harmful=PATHS.prompts(CONFIG.rank_audit.harmful),
        harmless=PATHS.prompts(CONFIG.rank_audit.harmless),
    output:
        directory(PATHS.pair_tables("{pair}", "reference_behaviour")),
    log:
        PATHS.log("reference_behaviour", "{pair}"),
    benchmark:
        PATHS.timing("reference_behaviour", "{pair}")
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
        code=code("studies.spectral_gap.behaviour"),
        status=str(PATHS.status),
    script:
        "../scripts/reference_behaviour.py"


rule spectral_gap:
    input:
        stores=lambda wildcards: PLAN.gap_stores(wildcards.pair),
        prompts=[PATHS.prompts(name) for name in PLAN.shift_sets],
    output:
        directory(PATHS.pair_tables("{pair}", "spectral_gap")),
    log:
        PATHS.log("spectral_gap", "{pair}"),
    benchmark:
        PATHS.timing("spectral_gap", "{pair}")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        settings=CONFIG.rank_audit.model_dump(),
        seed=CONFIG.seed,
        code=code("studies.spectral_gap.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/spectral_gap.py"


rule spectral_gap_tables:
    input:
        [PATHS.pair_tables(pair, "spectral_gap") for pair in PLAN.referring_pairs],
        [PATHS.pair_tables(pair, "reference_behaviour") for pair in PLAN.referring_pairs],
        published=PUBLISHED / "spectral_gap_llama_per_layer.csv",
    output:
        [
            PATHS.study_tables("rank_audit") / f"{name}.csv"
            for name in ("spectral_gap", "spectral_gap_summary")
        ],
    log:
        PATHS.log("spectral_gap_tables"),
    benchmark:
        PATHS.timing("spectral_gap_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        gaps=PLAN.table_folders("spectral_gap"),
        behaviours=PLAN.table_folders("reference_behaviour"),
        zoo_sizes=PLAN.zoo_sizes(),
        code=code("studies.spectral_gap.join"),
        status=str(PATHS.status),
    script:
        "../scripts/spectral_gap_tables.py"
