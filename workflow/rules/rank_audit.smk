"""study A, effective rank of the shift: stores of a pair -> tables.

rank_audit            stores of one pair   -> results/<run>/pairs/<pair>/rank_audit
rank_audit_aggregate  all pairs' tables    -> results/<run>/tables/rank_audit/*.csv
"""

from actshift.studies.rank_audit.columns import COLUMNS as RANK_TABLES

PUBLISHED = HERE / "resources" / "published"


rule rank_audit:
    input:
        stores=lambda wildcards: PLAN.stores(wildcards.pair),
        prompts=[PATHS.prompts(name) for name in PLAN.audit_sets],
    output:
        directory(PATHS.pair_tables("{pair}", "rank_audit")),
    log:
        PATHS.log("rank_audit", "{pair}"),
    benchmark:
        PATHS.timing("rank_audit", "{pair}")
    priority: 20
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        settings=CONFIG.rank_audit.model_dump(),
        seed=CONFIG.seed,
        code=code("studies.rank_audit.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/rank_audit.py"


rule rank_audit_aggregate:
    input:
        tables=[PATHS.pair_tables(pair.name, "rank_audit") for pair in CONFIG.chosen_pairs],
        ranks=PUBLISHED / "effective_rank_per_layer.csv",
        cosines=PUBLISHED / "arditi_cosine_per_layer.csv",
    output:
        [PATHS.study_tables("rank_audit") / f"{name}.csv" for name in [*RANK_TABLES, "pairs"]],
    log:
        PATHS.log("rank_audit_aggregate"),
    benchmark:
        PATHS.timing("rank_audit_aggregate")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("rank_audit"),
        code=code("studies.rank_audit.join"),
        status=str(PATHS.status),
    script:
        "../scripts/rank_audit_aggregate.py"
