"""refusal direction: a tuned model and prompts -> candidates, choice, held-out rows -> tables.

refusal_direction  checkpoint, prompts -> results/<run>/pairs/<pair>/refusal_direction
                   differences of means, three scores on `select`, choice, lanes on `heldout`
"""


rule refusal_direction:
    input:
        checkpoint=PATHS.checkpoint("{pair}.tuned"),
        harmful=PATHS.prompts(CONFIG.conditions.harmful),
        harmless=PATHS.prompts(CONFIG.conditions.harmless),
    output:
        directory(PATHS.pair_tables("{pair}", "refusal_direction")),
    log:
        PATHS.log("refusal_direction", "{pair}"),
    benchmark:
        PATHS.timing("refusal_direction", "{pair}")
    priority: 25
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        stage="actshift.studies.refusal_direction.stage:refusal_direction",
        section="actshift.studies.refusal_direction.study:RefusalDirection",
        arguments={},
        run=CONFIG.run,
        settings=CONFIG.refusal_direction.model_dump(),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.refusal_direction.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"
