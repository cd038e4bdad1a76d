"""misalignment, study B: directions of the adapters -> steering within a model and across models.

steering    adapters, directions, questions -> results/<run>/pairs/<pair>/steering
ridge_maps  stores of all pairs             -> results/<run>/ridge_maps: a map an ordered pair
transfer    maps, adapters, questions       -> results/<run>/pairs/<pair>/transfer, of the receiver
"""


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
    threads: 1
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.misalignment.model_dump(exclude={"data", "adapters"}),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.misalignment.stages.steering"),
        status=str(PATHS.status),
    script:
        "../scripts/steering.py"


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
    threads: 1
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
    threads: 1
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        settings=CONFIG.misalignment.model_dump(exclude={"data", "adapters"}),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.misalignment.stages.transfer"),
        status=str(PATHS.status),
    script:
        "../scripts/transfer.py"
