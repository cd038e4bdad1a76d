"""published claims: every study's tables -> verdicts.

claims  tables + resources/claims.yaml -> results/<run>/tables/{claims,claims_by_pair}.csv
"""

from actshift.plan.gates import study_folders

#: The tables that claims are decided from: a study adds the outputs of its aggregate rules here.
CLAIM_TABLES = [
    *(rules.rank_audit_aggregate.output if "rank_audit" in CONFIG.studies else []),
    *(rules.refusal_tables.output if "refusal_direction" in CONFIG.studies else []),
    *(rules.ablation_tables.output if "ablation" in CONFIG.studies else []),
    *(rules.spectral_gap_tables.output if "spectral_gap" in CONFIG.studies else []),
    *(rules.judge.output.tables if "ablation" in CONFIG.studies else []),
    *(rules.localization_tables.output if "localization" in CONFIG.studies else []),
    *(rules.misalignment_tables.output if "misalignment" in CONFIG.studies else []),
    *(rules.calibration_tables.output if "calibration" in CONFIG.studies else []),
]


rule claims:
    input:
        tables=CLAIM_TABLES,
        claims=HERE / "resources" / "claims.yaml",
    output:
        PATHS.tables / "claims.csv",
        PATHS.tables / "claims_by_pair.csv",
    log:
        PATHS.log("claims"),
    benchmark:
        PATHS.timing("claims")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=[pair.name for pair in CONFIG.chosen_pairs],
        folders=study_folders(PLAN),
        code=code("stages.claims"),
        status=str(PATHS.status),
    script:
        "../scripts/claims.py"
