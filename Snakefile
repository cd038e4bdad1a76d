"""actshift: what tuning did inside a language model.

    config -> checkpoints -> prompts -> extract -> analyse -> aggregate -> report

One rules file a stage, in that order, under workflow/rules; `snakemake --cores 8` runs it all.
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
include: "workflow/rules/rank_audit.smk"
include: "workflow/rules/refusal_direction.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/ablation_tables.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/spectral_gap.smk"
include: "workflow/rules/localization.smk"
include: "workflow/rules/localization_tables.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/adapters.smk"
include: "workflow/rules/misalignment.smk"
include: "workflow/rules/misalignment_tables.smk"
include: "workflow/rules/misalignment_judge.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        PATHS.report,
        PLAN.unread_stores(),
        rules.judge.output.verdicts if "ablation" in CONFIG.studies else [],
        JUDGED,
    localrule: True


onsuccess:
    end_summary(failed=False)


onerror:
    partial_report()
    end_summary(failed=True)
