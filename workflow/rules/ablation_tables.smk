"""ablation tables: rows of every pair's lanes -> what they say, with tests and controls.

ablation_tables  all pairs' folders -> results/<run>/tables/rank_audit/{ablation_sweep,...}.csv
"""

from actshift.studies.ablation.tables.columns import COLUMNS as ABLATION_TABLES
from actshift.studies.ablation.tables.columns import PUBLISHED_FILES as ABLATION_PUBLISHED
from actshift.studies.ablation.tables.columns import PUBLISHED_TABLE as ABLATION_BESIDE


rule ablation_tables:
    input:
        pairs=[PATHS.pair_tables(pair.name, "ablation") for pair in CONFIG.chosen_pairs],
        published=[PUBLISHED / name for name in ABLATION_PUBLISHED],
    output:
        [
            PATHS.study_tables("rank_audit") / f"{name}.csv"
            for name in (*ABLATION_TABLES, ABLATION_BESIDE)
        ],
    log:
        PATHS.log("ablation_tables"),
    benchmark:
        PATHS.timing("ablation_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("ablation"),
        zoo_sizes=PLAN.zoo_sizes(),
        seed=CONFIG.seed,
        code=code("studies.ablation.join"),
        status=str(PATHS.status),
    script:
        "../scripts/ablation_tables.py"
