"""prompts: a source of prompts -> results/<run>/prompts/<prompt set>.jsonl

load or generate, reject near-duplicates, give clusters and splits
"""


rule prompts:
    input:
        lambda wildcards: PLAN.prompt_inputs(wildcards.prompt_set, HERE),
    output:
        PATHS.prompts("{prompt_set}"),
    log:
        PATHS.log("prompts", "{prompt_set}"),
    benchmark:
        PATHS.timing("prompts", "{prompt_set}")
    # First, so that the job that loads a model finds the prompts of its other streams.
    priority: 200
    conda:
        "../../envs/cpu.yaml"
    params:
        spec=lambda wildcards: PLAN.prompt_spec(wildcards.prompt_set),
        code=code("stages.prompts"),
        status=str(PATHS.status),
    script:
        "../scripts/prompts.py"
