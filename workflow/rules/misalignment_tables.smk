"""misalignment tables: rows of every pair's adapters, lanes and maps -> what they say.

misalignment_tables  all pairs' folders -> results/<run>/tables/misalignment/{dose,...}.csv
"""

from actshift.studies.misalignment.kinds import STAGES as MISALIGNMENT_STAGES
from actshift.studies.misalignment.tables.columns import COLUMNS as MISALIGNMENT_TABLES
from actshift.studies.misalignment.tables.columns import PUBLISHED_TABLE as MISALIGNMENT_BESIDE


rule misalignment_tables:
    input:
        **{
            stage: [PATHS.pair_tables(pair.name, stage) for pair in CONFIG.chosen_pairs]
            for stage in MISALIGNMENT_STAGES
        },
        maps=PATHS.ridge_maps,
        questions=PATHS.prompts(CONFIG.misalignment.questions),
        published=PUBLISHED / "headline.csv",
    output:
        [
            PATHS.study_tables("misalignment") / f"{name}.csv"
            for name in (*MISALIGNMENT_TABLES, MISALIGNMENT_BESIDE)
        ],
    log:
        PATHS.log("misalignment_tables"),
    benchmark:
        PATHS.timing("misalignment_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        folders={stage: PLAN.table_folders(stage) for stage in MISALIGNMENT_STAGES},
        seed=CONFIG.seed,
        code=code("studies.misalignment.join"),
        status=str(PATHS.status),
    script:
        "../scripts/misalignment_tables.py"
