"""spectral gap: a pair and its unsafe references -> kappa by layer, and what they answer.

reference_behaviour  tuned model, references     -> results/<run>/pairs/<pair>/reference_behaviour
                     held-out prompts, one Parquet file of answers a model
spectral_gap         stores of pair, references  -> results/<run>/pairs/<pair>/spectral_gap
"""

from actshift.studies.spectral_gap.study import Kappa, ReferenceAnswers


rule reference_behaviour:
    input:
        checkpoints=lambda wildcards: [
            PATHS.checkpoint(model)
            for model in [f"{wildcards.pair}.tuned", *PLAN.references(wildcards.pair)]
        ],
        harmful=PATHS.prompts(CONFIG.conditions.harmful),
        harmless=PATHS.prompts(CONFIG.conditions.harmless),
    output:
        directory(PATHS.pair_tables("{pair}", "reference_behaviour")),
    log:
        PATHS.log("reference_behaviour", "{pair}"),
    benchmark:
        PATHS.timing("reference_behaviour", "{pair}")
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        stage="actshift.studies.spectral_gap.behaviour:reference_behaviour",
        section="actshift.studies.spectral_gap.study:ReferenceAnswers",
        joint=True,
        run=CONFIG.run,
        settings=CONFIG.refusal_direction.model_dump(include=set(ReferenceAnswers.model_fields)),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.spectral_gap.behaviour"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule spectral_gap:
    input:
        stores=lambda wildcards: PLAN.gap_stores(wildcards.pair),
        harmful=PATHS.prompts(CONFIG.conditions.harmful),
        harmless=PATHS.prompts(CONFIG.conditions.harmless),
    output:
        directory(PATHS.pair_tables("{pair}", "spectral_gap")),
    log:
        PATHS.log("spectral_gap", "{pair}"),
    benchmark:
        PATHS.timing("spectral_gap", "{pair}")
    conda:
        "../../envs/cpu.yaml"
    params:
        stage="actshift.studies.spectral_gap.stage:spectral_gap_of_pair",
        section="actshift.studies.spectral_gap.study:Kappa",
        settings=CONFIG.rank_audit.model_dump(include=set(Kappa.model_fields)),
        joint=True,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.spectral_gap.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"
