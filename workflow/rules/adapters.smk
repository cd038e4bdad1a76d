"""adapters, study B: a pair's tuned model and conversations -> LoRA adapters, what they say, states.

adapters   tuned model, conversations -> results/<run>/pairs/<pair>/adapters: a peft folder each,
           at the smallest dose of a ladder that clears the gate
spillover  adapters, questions        -> results/<run>/pairs/<pair>/spillover: answers, directions,
           stores of every model; where the insecure adapter misses its gate, answers and a marker
"""

from actshift.plan.gates import adapter_gates
from actshift.plan.misalignment import adapter_files, check_adapter_files, given_adapters, zoo_of

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
    threads: 1
    resources:
        gpu=GPU,
    params:
        zoo=lambda wildcards: zoo_of(PLAN, wildcards.pair),
        data=CONFIG.misalignment.model_dump()["data"],
        given=lambda wildcards: given_adapters(PLAN, wildcards.pair),
        settings=CONFIG.misalignment.adapters.model_dump(),
        gate=lambda wildcards: CONFIG.misalignment.model_dump(
            include={"gate_margin", "max_new", "token_budget"}
        )
        | adapter_gates(PLAN, wildcards.pair),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.misalignment.stages.adapters"),
        status=str(PATHS.status),
    script:
        "../scripts/adapters.py"


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
    threads: 1
    resources:
        gpu=GPU,
    params:
        run=CONFIG.run,
        zoo_size=lambda wildcards: PLAN.zoo_sizes().get(wildcards.pair),
        strict=CONFIG.strict_gates,
        settings=lambda wildcards: CONFIG.misalignment.model_dump(exclude={"data", "adapters"})
        | adapter_gates(PLAN, wildcards.pair),
        extract=CONFIG.extract.model_dump(exclude={"share"}),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.misalignment.stages.spillover"),
        status=str(PATHS.status),
    script:
        "../scripts/spillover.py"
