"""claims: tables and the claims of every study -> verdicts.

claims  tables, studies/*/claims.yaml -> results/<run>/tables/{claims,claims_by_pair}.csv
"""

from actshift.plan.plan import number_folders

#: The claims of every study, in the order of the registry.
CLAIMS = {
    name: HERE / "workflow" / "actshift" / "studies" / name / "claims.yaml" for name in STUDIES
}


rule claims:
    input:
        tables=STUDY_TABLES,
        claims=CLAIMS.values(),
    output:
        PATHS.tables / "claims.csv",
        PATHS.tables / "claims_by_pair.csv",
    log:
        PATHS.log("claims"),
    benchmark:
        PATHS.timing("claims")
    conda:
        "../../envs/cpu.yaml"
    params:
        pairs=[pair.name for pair in CONFIG.chosen_pairs],
        folders=number_folders(PLAN),
        larger_run=CONFIG.report.larger_run,
        code=code("stages.claims"),
        status=str(PATHS.status),
    script:
        "../scripts/claims.py"
