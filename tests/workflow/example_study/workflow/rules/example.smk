"""example: activation stores of a pair -> the norm of the shift.

example  stores of one pair  -> results/<run>/pairs/<pair>/example
"""


rule example:
    input:
        stores=lambda wildcards: PLAN.shift_stores(wildcards.pair),
    output:
        directory(PATHS.pair_tables("{pair}", "example")),
    log:
        PATHS.log("example", "{pair}"),
    benchmark:
        PATHS.timing("example", "{pair}")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        stage="actshift.studies.example.stage:measure",
        section="actshift.studies.example.study:Example",
        settings=CONFIG.example.model_dump(),
        arguments={"prompt_set": CONFIG.conditions.harmful},
        run=CONFIG.run,
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.example.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"
