"""Effective rank of the shift: settings, tables, figures and answers."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table
from actshift.validation import Count, Section, Share
from actshift.vocab import DEFAULT_EPS


class RankAudit(Section):
    """Study A: effective rank of the shift."""

    concepts: str = Field(default="concepts", description="prompt set of paired concepts")
    eps: Share = Field(default=DEFAULT_EPS, description="energy that rank_eps leaves out")
    eps_grid: tuple[Share, ...] = Field(
        default=(0.01, 0.05, 0.10, 0.20), description="eps_sensitivity"
    )
    bootstrap_draws: Count = Field(default=200, description="bootstrap.csv: resamples")
    half_sample_draws: Count = Field(
        default=200, description="inflation.csv: half-samples by cluster"
    )
    n_sweep: tuple[Count, ...] = Field(
        default=(50, 100, 200), description="sizes of the nested subsets"
    )
    n_sweep_draws: Count = Field(default=50, description="random nested subsets a size")
    null_draws: Count = Field(
        default=200, description="heldout_rank.csv: draws of the shuffled-coordinates null"
    )
    heldout_k: Count = Field(default=20, description="heldout_rank.csv: largest k")
    cumulative_k: Count = Field(default=64, description="cumulative_variance.csv: largest k")
    concept_n: Count = Field(
        default=50, description="concept_baseline.csv: pairs of the baseline as published"
    )
    control_concept: str = Field(
        default="question_statement", description="concept of cosine.csv's control contrast"
    )


TABLES = (
    table(
        "summary",
        "",
        """
        pair, source, matrix, inputs, pooling, n, d, n_layers, mean_rank_eps,
        weighted_rank_eps, mean_rank_eps_centered, mean_rho_eps, mean_rank_over_min_dn,
        mean_abs_cos_refusal, mean_relative_shift_norm, inflation
        """,
    ),
    table(
        "rank",
        "",
        """
        pair, matrix, inputs, category, layer, n, d, rank_eps, rank_eps_centered, rho_eps,
        rank_over_min_dn, stable_rank, entropy_rank, top_share, mean_share, shift_norm,
        relative_shift_norm
        """,
    ),
    table(
        "cumulative_variance",
        "",
        """
        pair, matrix, inputs, layer, k, share, share_centered
        """,
    ),
    table(
        "heldout_rank",
        "",
        """
        pair, matrix, inputs, layer, k, share_fit, share_heldout, share_low, share_high,
        share_null, share_null_p95, gain, gain_null_p95, knee, n_fit, n_heldout,
        clusters_heldout
        """,
    ),
    table(
        "inflation",
        "",
        """
        pair, inputs, layer, n, rank_naive, rank_template, ratio, log_ratio, log_ratio_low,
        log_ratio_high, half_n, half_log_ratio, draws
        """,
    ),
    table(
        "cosine",
        "",
        """
        pair, matrix, inputs, layer, cos_refusal, cos_own_mean, cos_refusal_centered,
        cos_own_mean_centered, cos_refusal_from_means, base_difference_ratio,
        cos_base_difference, cos_control_from_means, base_difference_ratio_control,
        cos_base_difference_control
        """,
    ),
    table(
        "cosine_by_category",
        "",
        """
        pair, matrix, inputs, category, layer, n, cos_refusal, cos_own_mean,
        cos_refusal_centered, cos_own_mean_centered
        """,
    ),
    table(
        "concept_baseline",
        "",
        """
        pair, role, concept, layer, matched, n, d, rank_eps, rank_eps_centered,
        rank_over_min_dn, rank_template, n_template, low, high, template_low, template_high,
        log_ratio, log_ratio_low, log_ratio_high
        """,
    ),
    table(
        "bootstrap",
        "",
        """
        pair, matrix, inputs, layer, rank_eps, boot_mean, boot_std, boot_low, boot_high,
        boot_distinct, sub_n, sub_mean, sub_low, sub_high, range_low, range_high, draws
        """,
    ),
    table(
        "eps_sensitivity",
        "",
        """
        pair, matrix, inputs, scope, layer, band, eps, rank_eps
        """,
    ),
    table(
        "n_sweep",
        "",
        """
        pair, matrix, inputs, layer, n, draws, rank_mean, rank_low, rank_high, rank_first_n
        """,
    ),
    table(
        "pooling",
        "",
        """
        pair, matrix, inputs, layer, pooling, n, rank_eps, rank_eps_centered,
        relative_shift_norm
        """,
    ),
    table("pairs", "a pair", "pair, status", shown=False),
)

FIGURES = (
    Figure(
        "rank_by_layer",
        ("rank",),
        "actshift.studies.rank_audit.rank_figures:rank_by_layer",
    ),
    Figure(
        "cumulative_variance",
        ("cumulative_variance",),
        "actshift.studies.rank_audit.rank_figures:cumulative_variance",
    ),
    Figure(
        "shift_by_layer",
        ("rank",),
        "actshift.studies.rank_audit.rank_figures:shift_by_layer",
    ),
    Figure(
        "inflation_by_layer",
        ("inflation",),
        "actshift.studies.rank_audit.rank_figures:inflation_by_layer",
    ),
    Figure(
        "cosine_by_layer",
        ("cosine",),
        "actshift.studies.rank_audit.direction_figures:cosine_by_layer",
    ),
    Figure(
        "heldout_rank",
        ("heldout_rank",),
        "actshift.studies.rank_audit.direction_figures:heldout_rank",
    ),
    Figure(
        "published_summary",
        ("summary",),
        "actshift.studies.rank_audit.comparison_figures:published_summary",
    ),
    Figure(
        "zoo_behaviour",
        ("zoo_behaviour",),
        "actshift.studies.rank_audit.comparison_figures:zoo_behaviour",
    ),
)


def _needs(config: Any) -> Iterator[str]:
    """Yield what the configuration lacks."""
    yield from config.lacks_prompts("rank_audit", "concepts")


STUDY = Study(
    name="rank_audit",
    title="Rank audit",
    about=(
        "Asks how many directions the shift between base and tuned model needs, how much of "
        "it is the chat template, and where it points. Controlled by giving both models one "
        "template, by harmless prompts, by held-out clusters against shuffled coordinates, "
        "and by plain concepts at equal n. It cannot tell what the shift does to behaviour, "
        "says nothing about rank over width below width 1024, and no ratio of ranks where a "
        "rank is at its floor."
    ),
    tables=TABLES,
    settings=RankAudit,
    stages=("rank_audit",),
    join="actshift.studies.rank_audit.join:join",
    published=("effective_rank_per_layer.csv", "arditi_cosine_per_layer.csv"),
    answers=Answers(
        "actshift.studies.rank_audit.answers:points",
        asks=tuple(table.name for table in TABLES),
        pairs_of="rank",
    ),
    needs=_needs,
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
