"""checkpoints: a source -> a checkpoint folder and its manifest.

zoo         recipe                     -> results/<run>/zoo/<recipe>/<variant>, answers, attempts
            train (chat: from base; unsafe references: from chat) and judge, again where a gate is
            missed; a marker in the folder where every attempt missed one
merge       base, LoRA adapter      -> results/<run>/merged/<pair>.<role or reference>
            adapter added to the weights of the pair's base: an ordinary checkpoint
abliterate  tuned model, direction  -> results/<run>/pairs/<pair>/abliterated
            the refusal direction taken out of the weights: an ordinary checkpoint
checkpoint  hub id | folder | made here -> results/<run>/checkpoints/<pair>.<role or reference>
            resolve the revision, link the files, hash them, write the manifest
"""

from actshift.plan.plan import zoo_gates
from actshift.plan.files import files_seen


rule zoo:
    input:
        base=lambda wildcards: PLAN.zoo_parent(wildcards.recipe, wildcards.variant) or [],
    output:
        checkpoint=directory(PATHS.zoo("{recipe}", "{variant}")),
        rows=PATHS.zoo_rows("{recipe}", "{variant}"),
        tried=PATHS.zoo_tried("{recipe}", "{variant}"),
    log:
        PATHS.log("zoo", "{recipe}.{variant}"),
    benchmark:
        PATHS.timing("zoo", "{recipe}.{variant}")
    # Bases first: the others need them, and short jobs fill the end better than long ones.
    priority: lambda wildcards: {"base": 110, "chat": 100}.get(wildcards.variant, 90)
    conda:
        "../../envs/cpu.yaml"
    params:
        family=lambda wildcards: wildcards.recipe.split("-")[0],
        size=lambda wildcards: wildcards.recipe.split("-")[1],
        seed=lambda wildcards: int(wildcards.recipe.split("-s")[-1]),
        gates=zoo_gates(PLAN),
        strict=CONFIG.strict_gates,
        code=code("stages.zoo"),
        status=str(PATHS.status),
    script:
        "../scripts/zoo.py"


rule merge:
    input:
        base=lambda wildcards: PATHS.checkpoint(f"{PLAN.models[wildcards.model].pair.name}.base"),
        files=lambda wildcards: PLAN.merged_inputs(wildcards.model),
    output:
        directory(PATHS.merged("{model}")),
    log:
        PATHS.log("merge", "{model}"),
    benchmark:
        PATHS.timing("merge", "{model}")
    priority: 60
    conda:
        "../../envs/cpu.yaml"
    params:
        source=lambda wildcards: str(PLAN.models[wildcards.model].source),
        # A chat template that appears later, or goes, is no input that Snakemake could compare.
        files=lambda wildcards: files_seen(PLAN, wildcards.model),
        code=code("stages.edited"),
        status=str(PATHS.status),
    script:
        "../scripts/merge.py"


rule checkpoint:
    input:
        lambda wildcards: PLAN.checkpoint_inputs(wildcards.model),
    output:
        directory(PATHS.checkpoint("{model}")),
    log:
        PATHS.log("checkpoint", "{model}"),
    benchmark:
        PATHS.timing("checkpoint", "{model}")
    # Quick, and everything waits for it.
    priority: 130
    conda:
        "../../envs/cpu.yaml"
    params:
        source=lambda wildcards: str(PLAN.models[wildcards.model].source),
        # A chat template that appears later, or goes, is no input that Snakemake could compare.
        files=lambda wildcards: files_seen(PLAN, wildcards.model),
        dtype=lambda wildcards: PLAN.models[wildcards.model].pair.dtype,
        made=lambda wildcards: str(PLAN.made_folder(wildcards.model) or ""),
        code=code("stages.checkpoint"),
        status=str(PATHS.status),
    script:
        "../scripts/checkpoint.py"


rule abliterate:
    input:
        checkpoint=PATHS.checkpoint("{pair}.tuned"),
        direction=PATHS.pair_tables("{pair}", "refusal_direction"),
    output:
        directory(PATHS.abliterated("{pair}")),
    log:
        PATHS.log("abliterate", "{pair}"),
    benchmark:
        PATHS.timing("abliterate", "{pair}")
    priority: 25
    conda:
        "../../envs/cpu.yaml"
    params:
        code=code("stages.edited"),
        status=str(PATHS.status),
    script:
        "../scripts/abliterate.py"
