"""localization tables: rows of every pair's patches and swaps -> what they say, with controls.

localization_tables  all pairs' folders -> results/<run>/tables/localization/{patching,...}.csv
"""

from actshift.studies.localization.tables.columns import COLUMNS as LOCALIZATION_TABLES
from actshift.studies.localization.tables.columns import PUBLISHED_TABLE as LOCALIZATION_BESIDE


rule localization_tables:
    input:
        pairs=[PATHS.pair_tables(pair.name, "localization") for pair in CONFIG.chosen_pairs],
        published=PUBLISHED / "headline.csv",
    output:
        [
            PATHS.study_tables("localization") / f"{name}.csv"
            for name in (*LOCALIZATION_TABLES, LOCALIZATION_BESIDE)
        ],
    log:
        PATHS.log("localization_tables"),
    benchmark:
        PATHS.timing("localization_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("localization"),
        seed=CONFIG.seed,
        code=code("studies.localization.join"),
        status=str(PATHS.status),
    script:
        "../scripts/localization_tables.py"
