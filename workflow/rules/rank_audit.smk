"""study A, effective rank of the shift: stores of a pair -> tables.

rank_audit            stores of one pair   -> results/<run>/pairs/<pair>/rank_audit
rank_audit_aggregate  all pairs' tables    -> results/<run>/tables/rank_audit/*.csv
rank_audit_figures    tables               -> results/<run>/figures/rank_audit/*.{svg,png}
"""


rule rank_audit:
    input:
        stores=lambda wildcards: PLAN.stores(wildcards.pair),
        prompts=[PATHS.prompts(name) for name in PLAN.audit_sets],
    output:
        directory(PATHS.pair_tables("{pair}", "rank_audit")),
    params:
        settings=CONFIG.rank_audit.model_dump(),
        seed=CONFIG.seed,
        code=code("stages.rank_audit"),
        status=str(PATHS.status),
    log:
        PATHS.log("rank_audit", "{pair}"),
    benchmark:
        PATHS.timing("rank_audit", "{pair}")
    threads: 1
    priority: 20
    conda:
        "../../envs/cpu.yaml"
    script:
        "../scripts/rank_audit.py"
