"""report: tables only -> figures -> one page.

zoo_behaviour  answers of the zoo models -> results/<run>/tables/zoo_behaviour.csv
figures        tables                    -> results/<run>/figures/rank_audit/*.{svg,png}
report         tables + figures          -> results/<run>/report.html
"""

#: A figure is what has a caption.
CAPTIONS = (ROOT / "workflow" / "report").glob("*.rst")
FIGURES = sorted(caption.stem for caption in CAPTIONS if caption.stem != "workflow")
TABLES = [PATHS.tables / "zoo_behaviour.csv", *rules.rank_audit_aggregate.output]


rule zoo_behaviour:
    input:
        [PATHS.zoo_rows(*recipe) for recipe in PLAN.zoo],
    output:
        PATHS.tables / "zoo_behaviour.csv",
    log:
        PATHS.log("zoo_behaviour"),
    benchmark:
        PATHS.timing("zoo_behaviour")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        code=code("stages.zoo_tables"),
        status=str(PATHS.status),
    script:
        "../scripts/zoo_behaviour.py"


rule figures:
    input:
        TABLES,
    output:
        [PATHS.figures("rank_audit") / f"{name}.svg" for name in FIGURES],
        [
            report(
                PATHS.figures("rank_audit") / f"{name}.png",
                caption=f"../report/{name}.rst",
                category="Rank audit",
                labels={"figure": name.replace("_", " ")},
            )
            for name in FIGURES
        ],
    log:
        PATHS.log("figures"),
    benchmark:
        PATHS.timing("figures")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        code=code("stages.figures"),
        status=str(PATHS.status),
    script:
        "../scripts/figures.py"


rule report:
    input:
        TABLES,
        rules.claims.output,
        rules.figures.output,
        [PATHS.checkpoint(model) for model in PLAN.models],
        [PATHS.zoo_rows(*recipe) for recipe in PLAN.zoo],
        [HERE / "workflow" / "actshift" / "report" / f"page.{kind}" for kind in ("html.j2", "css")],
    output:
        PATHS.report,
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.timing("report")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        config=CONFIG.model_dump(mode="json", exclude={"device"}),
        code=code("stages.report"),
        status=str(PATHS.status),
    script:
        "../scripts/report.py"
