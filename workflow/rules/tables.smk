"""tables: the folders of all pairs -> the joint tables of every study.

<study>_tables  all pairs' folders -> results/<run>/tables/<folder of the study>/*.csv
"""

from actshift.studies.registry import STUDIES

for _study in STUDIES.values():
    _job = PLAN.table_job(_study.name)

    rule:
        name:
            f"{_study.name}_tables"
        input:
            [folder for of_stage in _job["folders"].values() for folder in of_stage.values()],
            list(_job["files"].values()),
            published=[HERE / "resources" / "published" / name for name in _study.published],
        output:
            [PATHS.table(_study, table) for table in _study.joined],
        log:
            PATHS.log(f"{_study.name}_tables"),
        benchmark:
            PATHS.timing(f"{_study.name}_tables")
        # The first page waits for this one.
        priority: 150 if _study.name == "rank_audit" else 0
        conda:
            "../../envs/cpu.yaml"
        params:
            **_job,
            code=code("stages.tables", module_of(_study.join)),
            status=str(PATHS.status),
        script:
            "../scripts/tables.py"


#: Every table of the studies that are on; what only a judge makes is asked for where one is named.
STUDY_TABLES = [
    PATHS.table(STUDIES[name], table)
    for name in CONFIG.studies
    for table in STUDIES[name].tables
    if not table.optional
]
