"""rank_audit, effective rank of the shift: stores of a pair -> tables.

rank_audit  stores of one pair   -> results/<run>/pairs/<pair>/rank_audit
"""


rule rank_audit:
    input:
        stores=lambda wildcards: PLAN.stores(wildcards.pair),
        harmful=PATHS.prompts(CONFIG.conditions.harmful),
        harmless=PATHS.prompts(CONFIG.conditions.harmless),
        concepts=PATHS.prompts(CONFIG.rank_audit.concepts),
    output:
        directory(PATHS.pair_tables("{pair}", "rank_audit")),
    log:
        PATHS.log("rank_audit", "{pair}"),
    benchmark:
        PATHS.timing("rank_audit", "{pair}")
    # The first page waits for it.
    priority: 120
    conda:
        "../../envs/cpu.yaml"
    params:
        stage="actshift.studies.rank_audit.stage:rank_audit",
        section="actshift.studies.rank_audit.study:RankAudit",
        settings=CONFIG.rank_audit.model_dump(),
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.rank_audit.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"
