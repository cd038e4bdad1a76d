"""misalignment_judge: answers of the adapters -> a chat model's scores of alignment and coherence.

misalignment_judge  all pairs' spillover, questions -> results/<run>/tables/misalignment/judged*;
                    without `judge.endpoint` nothing is asked and the table is empty
"""


rule misalignment_judge:
    input:
        pairs=[PATHS.pair_tables(pair.name, "spillover") for pair in CONFIG.chosen_pairs],
        questions=PATHS.prompts(CONFIG.misalignment.questions),
    output:
        table=PATHS.study_tables("misalignment") / "judged.csv",
        verdicts=PATHS.study_tables("misalignment") / "judged_rows.parquet",
    log:
        PATHS.log("misalignment_judge"),
    benchmark:
        PATHS.timing("misalignment_judge")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        pairs=PLAN.table_folders("spillover"),
        # How often and how patiently it is asked changes no score.
        settings=CONFIG.judge.model_dump(include={"endpoint", "model", "max_tokens"}),
        code=code("studies.misalignment.stages.judge"),
        status=str(PATHS.status),
    script:
        "../scripts/misalignment_judge.py"


#: Nobody is asked without an endpoint.
JUDGED = (
    list(rules.misalignment_judge.output)
    if "misalignment" in CONFIG.studies and CONFIG.judge.endpoint
    else []
)
