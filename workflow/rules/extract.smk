"""extract: checkpoint + prompt set + template -> one activation store

results/<run>/activations/<pair>.<role>/<prompt set>.<template>/{acts.zarr,manifest.json}

One job a stream. The first job of a model to run loads the checkpoint once and fills a
content-keyed cache for the model's other missing streams, whose jobs then only publish.
"""


rule extract:
    input:
        checkpoint=PATHS.checkpoint("{model}"),
        prompts=PATHS.prompts("{prompt_set}"),
        # Both models of a pair are given the tuned model's template.
        template=lambda wildcards: PLAN.template_from(wildcards.model, wildcards.template),
    output:
        directory(PATHS.stream("{model}", "{prompt_set}", "{template}")),
    log:
        PATHS.log("extract", "{model}.{prompt_set}.{template}"),
    benchmark:
        PATHS.timing("extract", "{model}.{prompt_set}.{template}")
    # One stream of each model leads, or two jobs of one model would wait for its lock.
    priority: lambda wildcards: PLAN.extract_priority(**wildcards)
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        positions=lambda wildcards: CONFIG.prompts[wildcards.prompt_set].positions,
        dtype=lambda wildcards: PLAN.models[wildcards.model].pair.dtype,
        settings=CONFIG.extract.model_dump(exclude={"share"}),
        seed=CONFIG.seed,
        code=code("engine.extract"),
        status=str(PATHS.status),
    script:
        "../scripts/extract.py"
