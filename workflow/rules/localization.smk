"""localization: preference pairs and both models -> every patch, control and block swap.

localization  set of preference pairs, both checkpoints -> results/<run>/pairs/<pair>/localization
              one row a lane and pair; the margins of both models beside it, and a gate on them
preference_margins  all pairs' margins -> results/<run>/tables/localization/preference_margins.csv
"""

from actshift.plan.plan import gated


rule localization:
    input:
        base=PATHS.checkpoint("{pair}.base"),
        tuned=PATHS.checkpoint("{pair}.tuned"),
        preferences=PATHS.prompts(CONFIG.localization.preferences),
    output:
        folder=directory(PATHS.pair_tables("{pair}", "localization")),
        rows=PATHS.margins("{pair}"),
    log:
        PATHS.log("localization", "{pair}"),
    benchmark:
        PATHS.timing("localization", "{pair}")
    # After the ablations, the longest jobs, and before the short ones.
    priority: 20
    conda:
        "../../envs/gpu.yaml" if GPU else "../../envs/cpu.yaml"
    resources:
        gpu=GPU,
    params:
        stage="actshift.studies.localization.stage:localization",
        section="actshift.studies.localization.study:Localization",
        arguments=lambda wildcards: {
            "rows": str(PATHS.margins(wildcards.pair)),
            "gated": gated(PLAN, wildcards.pair),
            "strict": CONFIG.strict_gates,
        },
        run=CONFIG.run,
        settings=CONFIG.localization.model_dump(),
        dtype=lambda wildcards: PLAN.models[f"{wildcards.pair}.tuned"].pair.dtype,
        seed=CONFIG.seed,
        code=code("studies.contract", "studies.localization.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/stage.py"


rule preference_margins:
    input:
        [PATHS.margins(pair.name) for pair in CONFIG.chosen_pairs],
    output:
        PATHS.study_tables("localization") / "preference_margins.csv",
    log:
        PATHS.log("preference_margins"),
    benchmark:
        PATHS.timing("preference_margins")
    conda:
        "../../envs/cpu.yaml"
    params:
        pairs=[pair.name for pair in CONFIG.chosen_pairs],
        seed=CONFIG.seed,
        code=code("studies.localization.gate"),
        status=str(PATHS.status),
    script:
        "../scripts/preference_margins.py"
