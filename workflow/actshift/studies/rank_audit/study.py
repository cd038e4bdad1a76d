"""Effective rank of the shift: settings, tables, figures and answers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table, words
from actshift.validation import Count, Section, Share
from actshift.vocab import DEFAULT_EPS


class RankAudit(Section):
    """Effective rank of the shift."""

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
    n_sweep_draws: Count = Field(default=50, description="random nested subsets of each size")
    null_draws: Count = Field(
        default=200, description="heldout_rank.csv: draws of the shuffled-coordinates null"
    )
    heldout_k: Count = Field(default=20, description="heldout_rank.csv: largest k")
    cumulative_k: Count = Field(default=64, description="cumulative_variance.csv: largest k")
    concept_n: Count = Field(
        default=50, description="concept_baseline.csv: concept pairs of the published baseline"
    )
    control_concept: str = Field(
        default="question_statement", description="concept of cosine.csv's control contrast"
    )


#: Columns that several tables have.
_SHARED = words(
    """
    matrix | | shift matrix: naive, template, aligned or did
    inputs | | condition of the prompts: harmful or harmless (did: harmful alone)
    category | | category of the prompts; `all` stands for all of them
    rank_eps | | smallest number of directions that holds 1 - eps of the energy, uncentred
    rank_eps_centered | | the same after the mean row is subtracted
    rank_over_min_dn | | rank_eps over the smaller of d and n
    relative_shift_norm | | Frobenius norm of the matrix over that of the activations subtracted
    cos_refusal | | absolute cosine of u_1 and the tuned model's harmful minus harmless mean
    cos_own_mean | | absolute cosine of u_1 and the matrix's own mean row
    cos_refusal_centered | | absolute cosine of the centred u_1 and that same refusal direction
    cos_own_mean_centered | | absolute cosine of the centred u_1 and the matrix's own mean row
    pooling | | last_prompt: the last prompt token; last_8_mean: the mean of the last eight
    """
)

_table = partial(table, shared=_SHARED)
TABLES = (
    _table(
        "summary",
        "a pair, matrix, condition and pooling, averaged over all layers",
        """
        pair
        source | | measured here, or published: another model
        matrix, inputs, pooling, n, d
        n_layers | | layers averaged over
        mean_rank_eps | | mean of rank_eps
        weighted_rank_eps | | mean of rank_eps, weighted by the squared relative_shift_norm
        mean_rank_eps_centered | | mean of rank_eps_centered
        mean_rho_eps | | mean_rank_eps over d
        mean_rank_over_min_dn | | mean of rank_over_min_dn
        mean_abs_cos_refusal | | mean of cos_refusal; last_prompt alone
        mean_relative_shift_norm | | mean of relative_shift_norm
        inflation | | mean rank of naive over mean rank of template, on these two rows
        """,
    ),
    _table(
        "rank",
        "a pair, matrix, condition, category and layer",
        """
        pair, matrix, inputs, category, layer, n, d, rank_eps, rank_eps_centered
        rho_eps | | rank_eps over d
        rank_over_min_dn
        stable_rank | | squared Frobenius norm over the largest squared singular value
        entropy_rank | | exp of the entropy of the singular values, scaled to sum to 1
        top_share | | share of the energy in the first direction u_1
        mean_share | | share of the energy in the mean row
        shift_norm | residual stream | root mean square, over prompts, of the norm of a row
        relative_shift_norm
        """,
    ),
    _table(
        "cumulative_variance",
        "a pair, matrix, condition, layer and k",
        """
        pair, matrix, inputs, layer
        k | | number of components
        share | | share of the energy in the first k components, uncentred
        share_centered | | the same after the mean row is subtracted
        """,
    ),
    _table(
        "heldout_rank",
        "a pair, matrix, condition, layer and k",
        """
        pair, matrix, inputs, layer
        k | | number of directions, fitted on the fit prompts
        share_fit | | share of the fit prompts' energy in them
        share_heldout | | share of the held-out prompts' energy in them
        share_low | | lower end of share_heldout over resampled held-out clusters (95 %)
        share_high | | upper end of share_heldout over resampled held-out clusters (95 %)
        share_null | | mean of share_heldout with the directions' coordinates shuffled
        share_null_p95 | | 95th percentile of that null
        gain | | share that direction k takes of what the first k - 1 leave, held out
        gain_null_p95 | | 95th percentile of what direction k takes with shuffled coordinates
        knee | | last k of the leading run with gain above gain_null_p95; 0: none
        n_fit | prompts | number of fit prompts
        n_heldout | prompts | number of held-out prompts
        clusters_heldout | | number of held-out clusters
        """,
    ),
    _table(
        "inflation",
        "a pair, condition and layer",
        """
        pair, inputs, layer, n
        rank_naive | | rank_eps of naive
        rank_template | | rank_eps of template
        ratio | | rank_naive over rank_template; empty where a rank is 0
        log_ratio | | natural logarithm of ratio
        log_ratio_low | | lower end of its stability range
        log_ratio_high | | upper end of its stability range
        half_n | prompts | mean size of a half-sample by cluster
        half_log_ratio | | mean log ratio of the half-samples
        draws | | number of half-samples
        """,
    ),
    _table(
        "cosine",
        "a pair, matrix, condition and layer",
        """
        pair, matrix, inputs, layer, cos_refusal, cos_own_mean, cos_refusal_centered
        cos_own_mean_centered
        cos_refusal_from_means | | cos_refusal as the means alone predict it; did alone
        base_difference_ratio | | norm of the base's own difference over the refusal direction's
        cos_base_difference | | signed cosine of the base's own difference and that direction
        cos_control_from_means | | cos_refusal_from_means for the control contrast
        base_difference_ratio_control | | base_difference_ratio for the control contrast
        cos_base_difference_control | | cos_base_difference for the control contrast
        """,
    ),
    _table(
        "cosine_by_category",
        "a pair, matrix, condition, category and layer",
        """
        pair, matrix, inputs, category, layer, n, cos_refusal, cos_own_mean,
        cos_refusal_centered, cos_own_mean_centered
        """,
    ),
    _table(
        "concept_baseline",
        "a pair, model, concept and layer, as published and at equal n",
        """
        pair
        role | | model in which the concept is read: base or tuned
        concept | | concept, first minus second side of its pairs
        layer
        matched | | whether both matrices are compared at one n; False: as published
        n | concept pairs | number of pairs behind rank_eps
        d
        rank_eps | | of the concept's differences; matched: mean over random subsets of n
        rank_eps_centered, rank_over_min_dn
        rank_template | | rank_eps of template, harmful prompts, at n_template
        n_template | prompts | number of prompts behind rank_template
        low | | lower end of the stability range of rank_eps
        high | | upper end of the stability range of rank_eps
        template_low | | lower end of the stability range of rank_template
        template_high | | upper end of the stability range of rank_template
        log_ratio | | natural logarithm of rank_eps over rank_template
        log_ratio_low | | lower end of its stability range
        log_ratio_high | | upper end of its stability range
        """,
    ),
    _table(
        "bootstrap",
        "a pair, matrix, condition and layer",
        """
        pair, matrix, inputs, layer, rank_eps
        boot_mean | | mean rank of resamples of the prompts with replacement
        boot_std | | standard deviation of these ranks
        boot_low | | lower end of the middle 95 % of these ranks
        boot_high | | upper end of the middle 95 % of these ranks
        boot_distinct | prompts | mean number of distinct prompts in a resample
        sub_n | prompts | mean size of a half-sample by cluster
        sub_mean | | mean rank of the half-samples
        sub_low | | lower end of the middle 95 % of these ranks
        sub_high | | upper end of the middle 95 % of these ranks
        range_low | | lower end of the stability range of rank_eps at full n
        range_high | | upper end of the stability range of rank_eps at full n
        draws | | number of resamples with replacement
        """,
    ),
    _table(
        "eps_sensitivity",
        "a pair, matrix, condition and eps, at a layer or over a band of layers",
        """
        pair, matrix, inputs
        scope | | layer or band
        layer | | decoder block, counted from 0; empty for a band
        band | | narrow, wide (released code) or printed (the paper's table); empty for a layer
        eps | | share of the energy that the rank may leave out
        rank_eps | | rank at that eps, uncentred; mean over the layers of a band
        """,
    ),
    _table(
        "n_sweep",
        "a pair, matrix, condition, layer and n",
        """
        pair, matrix, inputs, layer
        n | prompts | size of the subsets
        draws | | number of random nested subsets
        rank_mean | | mean rank_eps of the subsets
        rank_low | | lower end of the middle 95 % of their ranks
        rank_high | | upper end of the middle 95 % of their ranks
        rank_first_n | | rank_eps of the first n prompts of the file
        """,
    ),
    _table(
        "pooling",
        "a pair, matrix, condition, layer and pooling",
        """
        pair, matrix, inputs, layer, pooling, n, rank_eps, rank_eps_centered,
        relative_shift_norm
        """,
    ),
    _table(
        "pairs",
        "a pair",
        """
        pair
        status | | present, missing, or why nothing was measured
        """,
        shown=False,
    ),
)

_DRAW = "actshift.studies.rank_audit.figures"
FIGURES = (
    Figure("rank_by_layer", ("rank",), f"{_DRAW}:rank_by_layer"),
    Figure(
        "cumulative_variance",
        ("cumulative_variance",),
        f"{_DRAW}:cumulative_variance",
        settings=("eps",),
    ),
    Figure("shift_by_layer", ("rank",), f"{_DRAW}:shift_by_layer"),
    Figure("inflation_by_layer", ("inflation",), f"{_DRAW}:inflation_by_layer"),
    Figure("cosine_by_layer", ("cosine",), f"{_DRAW}:cosine_by_layer"),
    Figure("heldout_rank", ("heldout_rank",), f"{_DRAW}:heldout_rank"),
    Figure("published_summary", ("summary",), f"{_DRAW}:published_summary"),
    Figure("zoo_behaviour", ("zoo_behaviour",), f"{_DRAW}:zoo_behaviour"),
)


def _needs(config: Any) -> Iterator[str]:
    yield from config.lacks_prompts("rank_audit", "concepts")


STUDY = Study(
    name="rank_audit",
    title="Rank audit",
    about=(
        "Asks how many directions the shift between base and tuned model needs, how much "
        "of it is the chat template, and where it points. Controls: one template for both "
        "models, harmless prompts, held-out clusters against shuffled coordinates, and "
        "plain concepts at equal n. It cannot show what the shift does to behaviour. Rank "
        "over width is not informative below width 1024, and a ratio of ranks is not "
        "informative where a rank is at its minimum."
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
