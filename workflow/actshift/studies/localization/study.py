"""Localization of a preference in the layers: settings, tables, figures and answers."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table
from actshift.validation import Count, Rising, Section


class Localization(Section):
    """Where in the layers the preference for the chosen answers sits."""

    preferences: str = Field(
        default="preferences", description="prompt set of kind preferences that is scored"
    )
    n_pairs: Count = Field(default=80, description="pairs, where the set has no limit of its own")
    random_draws: Count = Field(default=20, description="random directions of matched norm")
    noise_draws: Count = Field(default=3, description="draws of Gaussian noise")
    ranks: Annotated[tuple[Count, ...], Rising] = Field(
        default=(1, 2, 4, 8, 16, 32),
        min_length=1,
        description="ranks of low-rank patches; those not below the width are left out",
    )
    alphas: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Rising] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        min_length=1,
        description="weights of the donor's states in interpolations",
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        default=4, description="folds of clusters; a basis is fitted on the other folds"
    )
    token_budget: Count = Field(
        default=32768, description="tokens edited at one time, lanes and padding counted"
    )
    max_tokens: Count = Field(
        default=512, description="most tokens of a prompt with its longer answer; else left out"
    )


TABLES = (
    table(
        "preference_margins",
        "",
        """
        pair, condition, n, clusters, margin_base, margin_tuned, gap, gap_low, gap_high
        """,
        made_by="preference_margins",
    ),
    table(
        "localization_summary",
        "",
        """
        pair, condition, length, statistic, operation, direction, positions, layer, n,
        clusters, value, value_low, value_high, peak, peak_low, last_layer_share,
        n_eff_over_layers, gap, gap_low, gap_high, status, why
        """,
        file="summary",
    ),
    table(
        "patching",
        "",
        """
        pair, condition, length, direction, positions, layer, n, clusters, effect, effect_low,
        effect_high, effect_per_token, chosen_change, chosen_change_low, chosen_change_high,
        rejected_change, rejected_change_low, rejected_change_high, logp_chosen,
        logp_rejected, damage, share, share_low, share_high, increment, increment_low,
        increment_high, gap, gap_low, gap_high, status, why
        """,
    ),
    table(
        "controls",
        "",
        """
        pair, condition, length, direction, control, positions, layer, draws, n, clusters,
        effect, effect_low, effect_high, effect_per_token, chosen_change, chosen_change_low,
        chosen_change_high, rejected_change, rejected_change_low, rejected_change_high,
        logp_chosen, logp_rejected, damage, share, share_low, share_high, draws_low,
        draws_median, draws_high, largest, patch_effect, difference, difference_low,
        difference_high, of_patch, of_patch_low, of_patch_high, beats_draws, gap, gap_low,
        gap_high, status, why
        """,
    ),
    table(
        "positions",
        "",
        """
        pair, condition, length, direction, positions, n, clusters, peak_layer, interior,
        peak, peak_low, peak_high, peak_share, last_layer, last_layer_low, last_layer_high,
        last_layer_share, edge_over_peak, edge_over_peak_low, edge_over_peak_high,
        top_quarter, of_all, of_all_low, of_all_high, gap, gap_low, gap_high, status, why
        """,
    ),
    table(
        "interpolation",
        "",
        """
        pair, condition, length, direction, positions, layer, alpha, n, clusters, effect,
        effect_low, effect_high, effect_per_token, chosen_change, chosen_change_low,
        chosen_change_high, rejected_change, rejected_change_low, rejected_change_high,
        logp_chosen, logp_rejected, damage, share, share_low, share_high, step, step_low,
        step_high, gap, gap_low, gap_high, status, why
        """,
    ),
    table(
        "sources",
        "",
        """
        pair, condition, length, direction, source, positions, layer, n, clusters, effect,
        effect_low, effect_high, effect_per_token, chosen_change, chosen_change_low,
        chosen_change_high, rejected_change, rejected_change_low, rejected_change_high,
        logp_chosen, logp_rejected, damage, share, share_low, share_high, gap, gap_low,
        gap_high, status, why
        """,
    ),
    table(
        "low_rank",
        "",
        """
        pair, condition, length, direction, positions, basis, keep_rest, rank, layer, d,
        k_over_d, n, clusters, effect, effect_low, effect_high, effect_per_token,
        chosen_change, chosen_change_low, chosen_change_high, rejected_change,
        rejected_change_low, rejected_change_high, logp_chosen, logp_rejected, damage,
        full_effect, of_full, of_full_low, of_full_high, over_controls, over_controls_low,
        over_controls_high, noise_of_full, share_of_variance, share_of_variance_fit, gap,
        gap_low, gap_high, status, why
        """,
    ),
    table(
        "block_swap",
        "",
        """
        pair, condition, length, operation, part, layer, n, clusters, effect, effect_low,
        effect_high, effect_per_token, chosen_change, chosen_change_low, chosen_change_high,
        rejected_change, rejected_change_low, rejected_change_high, logp_chosen,
        logp_rejected, damage, share, share_low, share_high, gap, gap_low, gap_high, status,
        why
        """,
    ),
    table(
        "distances",
        "",
        """
        pair, condition, length, position, layer, n, clusters, norm, norm_low, norm_high,
        norm_sd, growth
        """,
    ),
    table(
        "probe",
        "",
        """
        pair, condition, length, position, target, layer, n, clusters, slope, slope_low,
        slope_high, intercept, r2, r2_low, r2_high, r2_out, r2_out_low, r2_out_high
        """,
    ),
    table(
        "lasso",
        "",
        """
        pair, condition, length, position, target, model, folds, layer, n, clusters,
        coefficient, alpha, support, r2, r2_out, r2_out_low, r2_out_high, r2_out_length,
        r2_out_with_length, gain_over_length, gain_over_length_low, gain_over_length_high,
        status, why
        """,
    ),
    table(
        "lasso_stability",
        "",
        """
        pair, condition, length, position, target, layer, n, clusters, half_samples,
        permutations, null_half_samples, frequency, null_frequency, null_95, p, stable,
        stable_layers, layers_beyond_quarter, support, r2_out, r2_out_low, r2_out_high,
        gain_over_length_low, peak_layer, distance_to_peak, status, why
        """,
    ),
    table(
        "localization_published",
        "",
        """
        table, subject, quantity, value, unit, low, high, note
        """,
        published=True,
    ),
)

FIGURES = (
    Figure(
        "patch_forward",
        ("patching",),
        "actshift.studies.localization.figures.figures:patch_forward",
        beside=("controls", "localization_published"),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_reverse",
        ("patching",),
        "actshift.studies.localization.figures.figures:patch_reverse",
        beside=("controls",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_controls",
        ("controls",),
        "actshift.studies.localization.figures.figures:patch_controls",
        beside=("patching",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_interpolation",
        ("interpolation",),
        "actshift.studies.localization.figures.dose_figures:patch_interpolation",
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_sources",
        ("sources",),
        "actshift.studies.localization.figures.figures:patch_sources",
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_low_rank",
        ("low_rank",),
        "actshift.studies.localization.figures.dose_figures:patch_low_rank",
        beside=("localization_published",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "patch_positions",
        ("positions",),
        "actshift.studies.localization.figures.dose_figures:patch_positions",
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "swap_shares",
        ("block_swap",),
        "actshift.studies.localization.figures.swap_figures:swap_shares",
        beside=("localization_summary",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "state_distances",
        ("distances",),
        "actshift.studies.localization.figures.attribution_figures:state_distances",
        beside=("probe",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "lasso_coefficients",
        ("lasso",),
        "actshift.studies.localization.figures.attribution_figures:lasso_coefficients",
        beside=("localization_published",),
        seen="actshift.studies.localization.figures.seen:seen",
    ),
    Figure(
        "lasso_stability",
        ("lasso_stability",),
        "actshift.studies.localization.figures.attribution_figures:lasso_stability",
        seen="actshift.studies.localization.figures.seen:seen",
    ),
)


def _needs(config: Any) -> Iterator[str]:
    """Yield what the configuration lacks."""
    chosen = config.of(Localization).preferences
    sets = [name for name, source in config.prompts.items() if source.holds_pairs]
    if chosen not in sets:
        yield (
            f"localization.preferences: no set of preference pairs '{chosen}'; there are: "
            f"{', '.join(sorted(sets)) or 'none, add one under prompts'}"
        )


STUDY = Study(
    name="localization",
    title="Localization",
    about=(
        "Asks in which layers the preference for chosen answers sits, by putting states or "
        "weights of one model into the other. A patch of all positions holds every tuned "
        "block below it, so its curve rises by construction and shows no layer's own share: "
        "that is told from exchanged weights, and from the last prompt token. Controls: the "
        "receiver's own states, noise, random directions, donors on another pair and on a "
        "pair of the other condition. Harmful and harmless pairs stand apart, because "
        "tuning moves their margins in opposite directions. It cannot tell preference from "
        "fluency by one margin alone: log p of chosen and of rejected stand in the tables, "
        "and both fall where a patch does damage."
    ),
    tables=TABLES,
    settings=Localization,
    stages=("localization",),
    join="actshift.studies.localization.join:join",
    published=("headline.csv",),
    answers=Answers(
        "actshift.studies.localization.answers:points",
        asks=("preference_margins",),
        pairs_of="localization_summary",
    ),
    needs=_needs,
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
