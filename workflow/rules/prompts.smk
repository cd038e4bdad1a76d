"""prompts: a source of prompts -> results/<run>/prompts/<prompt set>.jsonl

load or generate, reject near-duplicates, give clusters and splits
"""


rule prompts:
    input:
        lambda wildcards: PLAN.prompt_inputs(wildcards.prompt_set, ROOT),
    output:
        PATHS.prompts("{prompt_set}"),
    params:
        spec=lambda wildcards: PLAN.prompt_spec(wildcards.prompt_set),
        code=code("stages.prompts"),
        status=str(PATHS.status),
    log:
        PATHS.log("prompts", "{prompt_set}"),
    benchmark:
        PATHS.timing("prompts", "{prompt_set}")
    threads: 1
    # First, so that the job that loads a model finds the prompts of its other streams.
    priority: 200
    conda:
        "../../envs/cpu.yaml"
    script:
        "../scripts/prompts.py"
