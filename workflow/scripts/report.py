"""Rules report and first_page: the page."""

from pathlib import Path

from actshift.job import job

with job(snakemake, joint=True):
    from actshift.stages.report import make_report

    out = Path(snakemake.output[0])
    show_text = snakemake.params.config["report"]["show_text"]
    make_report(
        out.parent,
        out,
        config=snakemake.params.config,
        failures=[],
        show_text=show_text,
        whole=snakemake.params.whole,
    )
