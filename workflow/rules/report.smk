"""report: tables only -> figures -> one page.

zoo_behaviour  answers of the zoo models -> results/<run>/tables/zoo_behaviour.csv
figures        tables                    -> results/<run>/figures/<study>/*.{svg,png}
report         tables + figures          -> results/<run>/report.html and run.json
"""

from actshift.studies.registry import CATALOGUE

#: (study, name) of every figure of the studies that are on.
FIGURES = [(study, figure) for figure, study in CATALOGUE.of(CONFIG.studies).figure_studies.items()]


rule zoo_behaviour:
    input:
        rows=[PATHS.zoo_rows(*recipe) for recipe in PLAN.zoo],
        tried=[PATHS.zoo_tried(*recipe) for recipe in PLAN.zoo],
    output:
        rates=PATHS.tables / "zoo_behaviour.csv",
        attempts=PATHS.tables / "zoo_attempts.csv",
    log:
        PATHS.log("zoo_behaviour"),
    benchmark:
        PATHS.timing("zoo_behaviour")
    conda:
        "../../envs/cpu.yaml"
    params:
        code=code("stages.tables"),
        status=str(PATHS.status),
    script:
        "../scripts/zoo_behaviour.py"


TABLES = [*rules.zoo_behaviour.output, *STUDY_TABLES]


rule figures:
    input:
        TABLES,
    output:
        [PATHS.figures(study) / f"{name}.svg" for study, name in FIGURES],
        [
            report(
                PATHS.figures(study) / f"{name}.png",
                caption=f"../actshift/studies/{study}/captions/{name}.rst",
                category=study.replace("_", " ").capitalize(),
                labels={"figure": name.replace("_", " ")},
            )
            for study, name in FIGURES
        ],
    log:
        PATHS.log("figures"),
    benchmark:
        PATHS.timing("figures")
    conda:
        "../../envs/cpu.yaml"
    threads: 4
    params:
        studies=list(CONFIG.studies),
        settings=PLAN.figure_settings(),
        code=code(
            "stages.figures",
            *{module_of(figure.draw) for figure in CATALOGUE.of(CONFIG.studies).figures.values()},
        ),
        status=str(PATHS.status),
    script:
        "../scripts/figures.py"


#: What studies say on the page.
PAGE_MODULES = {
    module_of(function)
    for study in CATALOGUE.of(CONFIG.studies).studies.values()
    for function in (
        *(figure.seen for figure in study.figures if figure.seen),
        *([study.answers.points] if study.answers else []),
    )
}


rule report:
    input:
        TABLES,
        rules.claims.output,
        rules.figures.output,
        JUDGED,
        [PATHS.checkpoint(model) for model in PLAN.models],
        [PATHS.zoo_rows(*recipe) for recipe in PLAN.zoo],
        [HERE / "workflow" / "actshift" / "report" / f"page.{kind}" for kind in ("html.j2", "css")],
    output:
        PATHS.report,
        PATHS.record,
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.timing("report")
    conda:
        "../../envs/cpu.yaml"
    params:
        config=CONFIG.model_dump(mode="json", exclude={"device"}),
        code=code("stages.report", *PAGE_MODULES),
        status=str(PATHS.status),
    script:
        "../scripts/report.py"
