"""actshift: what tuning did inside a language model.

    config -> checkpoints -> prompts -> extract -> analyse -> aggregate -> report

One rules file a stage or study under workflow/rules; `snakemake --cores 8` runs it all.
"""

from snakemake.utils import min_version

min_version("9.27")

# --configfile replaces the shipped demo instead of being merged into it.
if "pairs" not in config:

    configfile: "config.yaml"


include: "workflow/common.smk"
include: "workflow/rules/checkpoints.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/extract.smk"


from actshift.studies.registry import STUDIES

for _name in STUDIES:

    include: f"workflow/rules/{_name}.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        PATHS.report,
        PATHS.first_page if FIRST else [],
        PLAN.unread_stores(),
        rules.judge.output.verdicts if "ablation" in CONFIG.studies else [],
        JUDGED,
    localrule: True


onstart:
    lift_default_limit()


onsuccess:
    end_summary(failed=False)


onerror:
    partial_report()
    end_summary(failed=True)
