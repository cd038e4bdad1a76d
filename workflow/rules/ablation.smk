"""ablation, Test 2 of study A: a pair's stores and models -> every answer under every ablation.

ablation  stores, prompts, both checkpoints -> results/<run>/pairs/<pair>/ablation
          frames on `fit`, lanes on `heldout` (and on `fit`, as published), losses on plain text
"""


rule ablation:
    input:
        base=PATHS.checkpoint("{pair}.base"),
        tuned=PATHS.checkpoint("{pair}.tuned"),
        stores=lambda wildcards: PLAN.shift_stores(wildcards.pair),
        harmful=PATHS.prompts(CONFIG.rank_audit.harmful),
        harmless=PATHS.prompts(CONFIG.rank_audit.harmless),
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
    threads: 1
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.ablation.model_dump(),
        openers=CONFIG.refusal_direction.openers,
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.ablation.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/ablation.py"
