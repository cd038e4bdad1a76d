"""report: tables only -> figures -> one page.

zoo_behaviour  answers of the zoo models -> results/<run>/tables/zoo_behaviour.csv
first_figures  tables of the rank audit  -> results/<run>/figures/rank_audit/*.{svg,png}
first_page     its tables and figures    -> results/<run>/rank_audit.html, while the rest runs
figures        all tables                -> results/<run>/figures/<study>/*.{svg,png}
report         tables + figures          -> results/<run>/report.html and run.json
"""

from actshift.studies.registry import CATALOGUE
from actshift.vocab import ROLES

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
    # The first page waits for it.
    priority: 150
    conda:
        "../../envs/cpu.yaml"
    params:
        code=code("stages.tables"),
        status=str(PATHS.status),
    script:
        "../scripts/zoo_behaviour.py"


TABLES = [*rules.zoo_behaviour.output, *STUDY_TABLES]


#: What the page is made with besides what the run measured.
PAGE_FILES = [
    HERE / "workflow" / "actshift" / "report" / f"page.{kind}" for kind in ("html.j2", "css")
]
PAGE_CONFIG = CONFIG.model_dump(mode="json", exclude={"device"})

#: The rank audit is finished long before the rest, and has its figures and a page by then.
FIRST = [name for name in CONFIG.studies if name == "rank_audit" and len(CONFIG.studies) > 1]
FIRST_TABLES = [*rules.zoo_behaviour.output, *rules.rank_audit_tables.output]
LATER = [name for name in CONFIG.studies if name not in FIRST]

for _rule, _studies in {"first_figures": FIRST, "figures": LATER}.items():
    if not _studies:
        continue
    _figures = [(study, name) for study, name in FIGURES if study in _studies]

    rule:
        name:
            _rule
        input:
            FIRST_TABLES if _studies == FIRST else TABLES,
        output:
            [PATHS.figures(study) / f"{name}.svg" for study, name in _figures],
            [
                report(
                    PATHS.figures(study) / f"{name}.png",
                    caption=f"../actshift/studies/{study}/captions/{name}.rst",
                    category=study.replace("_", " ").capitalize(),
                    labels={"figure": name.replace("_", " ")},
                )
                for study, name in _figures
            ],
        log:
            PATHS.log(_rule),
        benchmark:
            PATHS.timing(_rule)
        priority: 150 if _studies == FIRST else 0
        conda:
            "../../envs/cpu.yaml"
        threads: 1 if _studies == FIRST else 4
        params:
            studies=_studies,
            settings=PLAN.figure_settings(_studies),
            code=code(
                "stages.figures",
                *{module_of(figure.draw) for figure in CATALOGUE.of(_studies).figures.values()},
            ),
            status=str(PATHS.status),
        script:
            "../scripts/figures.py"


if FIRST:

    rule first_page:
        input:
            FIRST_TABLES,
            rules.first_figures.output,
            [PATHS.checkpoint(name) for name, model in PLAN.models.items() if model.role in ROLES],
            PAGE_FILES,
        output:
            PATHS.first_page,
        log:
            PATHS.log("first_page"),
        benchmark:
            PATHS.timing("first_page")
        priority: 150
        conda:
            "../../envs/cpu.yaml"
        params:
            config=PAGE_CONFIG | {"studies": FIRST},
            whole=PATHS.report.name,
            code=code("stages.report", *map(module_of, CATALOGUE.of(FIRST).page_functions())),
            status=str(PATHS.status),
        script:
            "../scripts/report.py"


rule report:
    input:
        TABLES,
        rules.claims.output,
        rules.figures.output,
        rules.first_figures.output if FIRST else [],
        JUDGED,
        [PATHS.checkpoint(model) for model in PLAN.models],
        [PATHS.zoo_rows(*recipe) for recipe in PLAN.zoo],
        PAGE_FILES,
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
        config=PAGE_CONFIG,
        whole="",
        code=code("stages.report", *map(module_of, CATALOGUE.of(CONFIG.studies).page_functions())),
        status=str(PATHS.status),
    script:
        "../scripts/report.py"
