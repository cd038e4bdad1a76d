"""misalignment: LoRA adapters of a tuned model, what they answer, and edits of their activations.

adapters    tuned model, conversations      -> results/<run>/pairs/<pair>/adapters: a peft folder
            each, at the smallest dose of a ladder that clears the gate
spillover   adapters, questions             -> results/<run>/pairs/<pair>/spillover: answers,
            directions, stores of every model; a marker where the insecure adapter misses its gate
steering    adapters, directions, questions -> results/<run>/pairs/<pair>/steering
ridge_maps  stores of all pairs             -> results/<run>/ridge_maps: a map an ordered pair
transfer    maps, adapters, questions       -> results/<run>/pairs/<pair>/transfer, of the receiver
misalignment_judge  answers, questions      -> results/<run>/tables/misalignment/judged*; without
            `judge.endpoint` nothing is asked and the table is empty
"""

from actshift.plan.plan import adapter_gates
from actshift.plan.misalignment import adapter_files, check_adapter_files, given_adapters, zoo_of

SECTION = "actshift.studies.misalignment.study:Misalignment"

try:
    check_adapter_files(PLAN)
except UserError as error:
    sys.exit(f"actshift: {error}")


rule adapters:
    input:
        tuned=PATHS.checkpoint("{pair}.tuned"),
        questions=PATHS.prompts(CONFIG.misalignment.questions),
        files=lambda wildcards: adapter_files(PLAN, wildcards.pair),
    output:
        directory(PATHS.pair_tables("{pair}", "adapters")),
    log:
        PATHS.log("adapters", "{pair}"),
    benchmark:
        PATHS.timing("adapters", "{pair}")
    # Before the lanes of other studies: maps across models wait for the adapters of all pairs.
    priority: 45
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        settings=lambda wildcards: CONFIG.misalignment.model_dump(
            include={"data", "adapters", "gate_margin", "max_new", "token_budget"}
        )
        | adapter_gates(PLAN, wildcards.pair),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        stage="actshift.studies.misalignment.stages.adapters:train_adapters",
        section=SECTION,
        arguments=lambda wildcards: {
            "zoo": zoo_of(PLAN, wildcards.pair),
            "given": given_adapters(PLAN, wildcards.pair),
        },
        code=code("studies.misalignment.stages.adapters"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule spillover:
    input:
        tuned=PATHS.checkpoint("{pair}.tuned"),
        adapters=PATHS.pair_tables("{pair}", "adapters"),
        questions=PATHS.prompts(CONFIG.misalignment.questions),
        neutral=PATHS.prompts(CONFIG.misalignment.neutral),
    output:
        folder=directory(PATHS.pair_tables("{pair}", "spillover")),
        rows=PATHS.spillover_rows("{pair}"),
    log:
        PATHS.log("spillover", "{pair}"),
    benchmark:
        PATHS.timing("spillover", "{pair}")
    priority: 44
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=lambda wildcards: CONFIG.misalignment.model_dump(exclude={"data", "adapters"})
        | adapter_gates(PLAN, wildcards.pair),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        stage="actshift.studies.misalignment.stages.spillover:spillover",
        section=SECTION,
        arguments=lambda wildcards: {
            "strict": CONFIG.strict_gates,
            "extract": CONFIG.extract.model_dump(exclude={"share"}),
            "rows": str(PATHS.spillover_rows(wildcards.pair)),
        },
        code=code("studies.misalignment.stages.spillover"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule steering:
    input:
        tuned=PATHS.checkpoint("{pair}.tuned"),
        adapters=PATHS.pair_tables("{pair}", "adapters"),
        spillover=PATHS.pair_tables("{pair}", "spillover"),
        questions=PATHS.prompts(CONFIG.misalignment.questions),
    output:
        directory(PATHS.pair_tables("{pair}", "steering")),
    log:
        PATHS.log("steering", "{pair}"),
    benchmark:
        PATHS.timing("steering", "{pair}")
    priority: 22
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.misalignment.model_dump(exclude={"data", "adapters"}),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        stage="actshift.studies.misalignment.stages.steering:steering",
        section=SECTION,
        arguments={},
        code=code("studies.misalignment.stages.steering"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule ridge_maps:
    input:
        pairs=[PATHS.pair_tables(pair.name, "spillover") for pair in CONFIG.chosen_pairs],
        neutral=PATHS.prompts(CONFIG.misalignment.neutral),
    output:
        directory(PATHS.ridge_maps),
    log:
        PATHS.log("ridge_maps"),
    benchmark:
        PATHS.timing("ridge_maps")
    priority: 23
    conda:
        "../../envs/cpu.yaml"
    params:
        pairs=PLAN.table_folders("spillover"),
        families=PLAN.architecture_sources(),
        settings=CONFIG.misalignment.model_dump(
            include={"map_folds", "shuffled_maps", "final_draws"}
        ),
        seed=CONFIG.seed,
        code=code("studies.misalignment.stages.ridge_maps"),
        status=str(PATHS.status),
    script:
        "../scripts/ridge_maps.py"


rule transfer:
    input:
        tuned=PATHS.checkpoint("{pair}.tuned"),
        adapters=PATHS.pair_tables("{pair}", "adapters"),
        spillover=PATHS.pair_tables("{pair}", "spillover"),
        maps=PATHS.ridge_maps,
        questions=PATHS.prompts(CONFIG.misalignment.questions),
    output:
        directory(PATHS.pair_tables("{pair}", "transfer")),
    log:
        PATHS.log("transfer", "{pair}"),
    benchmark:
        PATHS.timing("transfer", "{pair}")
    priority: 21
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.misalignment.model_dump(exclude={"data", "adapters"}),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        stage="actshift.studies.misalignment.stages.transfer:transfer",
        section=SECTION,
        arguments={},
        code=code("studies.misalignment.stages.transfer"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule misalignment_judge:
    input:
        pairs=[PATHS.pair_tables(pair.name, "spillover") for pair in CONFIG.chosen_pairs],
        prompts=[PATHS.prompts(CONFIG.misalignment.questions)],
    output:
        table=PATHS.study_tables("misalignment") / "judged.csv",
        verdicts=PATHS.study_tables("misalignment") / "judged_rows.parquet",
    log:
        PATHS.log("misalignment_judge"),
    benchmark:
        PATHS.timing("misalignment_judge")
    conda:
        "../../envs/cpu.yaml"
    params:
        judge="actshift.studies.misalignment.judge:judge_misalignment",
        arguments={},
        pairs=PLAN.table_folders("spillover"),
        # How often and how patiently it is asked changes no score.
        settings=CONFIG.judge.model_dump(include={"endpoint", "model", "max_tokens"}),
        code=code("studies.misalignment.judge"),
        status=str(PATHS.status),
    script:
        "../scripts/judge.py"


#: Nobody is asked without an endpoint.
JUDGED = (
    list(rules.misalignment_judge.output)
    if "misalignment" in CONFIG.studies and CONFIG.judge.endpoint
    else []
)
