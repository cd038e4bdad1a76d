"""Localization of a preference in the layers: settings, tables, figures and answers."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table, words
from actshift.validation import Count, Rising, Section


class Localization(Section):
    """Where in the layers the preference for the chosen answers sits."""

    preferences: str = Field(
        default="preferences", description="prompt set of kind preferences that is scored"
    )
    n_pairs: Count = Field(default=80, description="preference pairs, if the set has no limit")
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


#: Columns that several tables have.
_SHARED = words(
    """
    condition | | condition of the preference pairs, such as harmful
    length | | natural, or matched: both completions cut to the tokens of the shorter one
    direction | | forward: base is patched from tuned; reverse: tuned from base
    positions | | tokens that are patched: all, prompt, completion or last_prompt
    operation | | insert: weights of tuned into base; remove: weights of base into tuned
    n | preference pairs | number of preference pairs
    effect | nats | mean margin with the edit minus mean margin of the receiver without it
    effect_per_token | nats a token | the same with each log-probability divided by its tokens
    chosen_change | nats | mean change of log p(chosen)
    rejected_change | nats | mean change of log p(rejected)
    logp_chosen | nats | mean of log p(chosen) with the edit
    logp_rejected | nats | mean of log p(rejected) with the edit
    damage | | 1 where both log-probabilities fall, else 0
    share | | effect over the mean margin of donor minus receiver: 1 is the donor
    gap | nats | mean margin of tuned minus base
    status | | decided, or no gap: the interval of `gap` holds 0
    position | | token whose state is read: last_prompt, last_chosen or last_rejected
    target | | value that is predicted: gap, gap_per_token or patch_effect
    support | | number of layers with a coefficient other than 0
    r2_out | | R^2 for pairs of unseen clusters; 0 is the training mean
    peak_layer | | layer where the patch moves furthest towards the donor
    last_layer_share | | share at the last layer
    """
)
_EFFECT = """
effect, effect_low, effect_high, effect_per_token
chosen_change, chosen_change_low, chosen_change_high
rejected_change, rejected_change_low, rejected_change_high
logp_chosen, logp_rejected, damage
"""
_SHARE = "share, share_low, share_high"
_GAP = "gap, gap_low, gap_high, status, why"

TABLES = (
    table(
        "preference_margins",
        "a pair of models and condition, whether the gate was met or not",
        """
        pair, condition, n, clusters
        margin_base | nats | mean of log p(chosen) - log p(rejected) under base
        margin_tuned | nats | the same under tuned
        gap, gap_low, gap_high
        """,
        shared=_SHARED,
        made_by="preference_margins",
    ),
    table(
        "localization_summary",
        "a pair of models, condition, length and statistic, with what its claim requires",
        f"""
        pair, condition, length
        statistic | | name of the number in `value`
        operation, direction, positions
        layer | | decoder block of the statistic, counted from 0; empty where it has none
        n, clusters
        value | | the statistic; nats for `gap`, else a share or a ratio
        value_low, value_high
        peak | nats | effect at the peak of the curve, towards the donor
        peak_low, last_layer_share
        n_eff_over_layers | | effective number of units over the number of layers
        {_GAP}
        """,
        shared=_SHARED,
        file="summary",
    ),
    table(
        "patching",
        "a pair of models, condition, length, direction, choice of positions and layer",
        f"""
        pair, condition, length, direction, positions, layer, n, clusters
        {_EFFECT}
        {_SHARE}
        increment | | share minus that of the layer before; at layer 0 minus 0
        increment_low, increment_high
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "controls",
        "a pair of models, condition, length, direction, control, positions and layer",
        f"""
        pair, condition, length, direction
        control | | identity, noise, random, shuffled, other_condition or whole_head
        positions, layer
        draws | | draws that the effect is the mean of; 1 where nothing is drawn
        n, clusters
        {_EFFECT}
        {_SHARE}
        draws_low | nats | smallest mean effect of a draw; empty where nothing is drawn
        draws_median | nats | median over draws of their mean effects
        draws_high | nats | largest mean effect of a draw
        largest | nats | largest change of any pair's margin; whole_head: distance to the donor's
        patch_effect | nats | effect of the patch at the same layer and positions
        difference | nats | patch_effect minus effect, pair by pair
        difference_low, difference_high
        of_patch | | effect over patch_effect; empty where its interval holds 0
        of_patch_low, of_patch_high
        beats_draws | | 1 where the patch goes further towards the donor than every draw, else 0
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "positions",
        "a pair of models, condition, length, direction and choice of positions",
        f"""
        pair, condition, length, direction, positions, n, clusters, peak_layer
        interior | | 1 where the peak is not the last layer, else 0
        peak | nats | effect at peak_layer, towards the donor
        peak_low, peak_high
        peak_share | | share at peak_layer
        last_layer | nats | effect at the last layer, towards the donor
        last_layer_low, last_layer_high, last_layer_share
        edge_over_peak | | last_layer over peak, the peak taken anew on each resample
        edge_over_peak_low, edge_over_peak_high
        top_quarter | | positive effects of the best quarter of the layers over all of them
        of_all | | last_layer over that of positions `all`
        of_all_low, of_all_high
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "interpolation",
        "a pair of models, condition, length, direction, layer and alpha",
        f"""
        pair, condition, length, direction, positions
        layer | | decoder block, counted from 0; empty for the mean over layers
        alpha | | weight of the donor's states
        n, clusters
        {_EFFECT}
        {_SHARE}
        step | nats | effect minus that of the alpha before, positive towards the donor
        step_low, step_high
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "sources",
        "a pair of models, condition, direction, source, positions and layer; matched length",
        f"""
        pair, condition, length, direction
        source | | states that are patched: donor (of each side), chosen, rejected or contrast
        positions, layer, n, clusters
        {_EFFECT}
        {_SHARE}
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "low_rank",
        "a pair of models, condition, length, direction, basis, rank and layer",
        f"""
        pair, condition, length, direction, positions
        basis | | shift, states, base_states or random; empty for the full patch
        keep_rest | | whether the receiver keeps what lies outside the basis
        rank | | directions of the basis
        layer | | decoder block, counted from 0; empty for the mean over layers
        d
        k_over_d | | rank over d
        n, clusters
        {_EFFECT}
        full_effect | nats | effect of the full patch
        of_full | | effect over full_effect
        of_full_low, of_full_high
        over_controls | | of_full minus that of random or base_states, the smaller difference
        over_controls_low | | smaller lower end of the two differences
        over_controls_high | | smaller upper end of the two differences
        noise_of_full | | effect of Gaussian noise over full_effect
        share_of_variance | | share of the squared norm in the basis, on unseen clusters
        share_of_variance_fit | | the same on the clusters that the basis was fitted on
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "block_swap",
        "a pair of models, condition, length, operation, part and layer",
        f"""
        pair, condition, length, operation
        part | | weights that are exchanged: block, attention, mlp, embeddings or head
        layer | | decoder block, counted from 0; empty for embeddings and head
        n, clusters
        {_EFFECT}
        {_SHARE}
        {_GAP}
        """,
        shared=_SHARED,
    ),
    table(
        "distances",
        "a pair of models, condition, length, position and layer",
        """
        pair, condition, length, position, layer, n, clusters
        norm | residual stream | mean norm of the state of tuned minus that of base
        norm_low, norm_high
        norm_sd | residual stream | standard deviation of the norm over pairs
        growth | | norm over that of the layer below; empty at layer 0
        """,
        shared=_SHARED,
    ),
    table(
        "probe",
        "a pair of models, condition, length, position, target and layer",
        """
        pair, condition, length, position, target, layer, n, clusters
        slope | target a unit of norm | slope of a line from the layer's norm to the target
        slope_low, slope_high
        intercept | target | intercept of the line
        r2 | | R^2 of the line in sample
        r2_low, r2_high, r2_out, r2_out_low, r2_out_high
        """,
        shared=_SHARED,
    ),
    table(
        "lasso",
        "a pair of models, condition, length, position, target, model, folds and layer",
        """
        pair, condition, length, position, target
        model | | lasso or elastic_net
        folds | | folds that choose the penalty: contiguous, as published, or cluster
        layer, n, clusters
        coefficient | target a standard deviation of norm | coefficient of the layer's norm
        alpha | | penalty that was chosen
        support
        r2 | | R^2 in sample
        r2_out, r2_out_low, r2_out_high
        r2_out_length | | r2_out of least squares on token counts alone
        r2_out_with_length | | r2_out of token counts and norms together
        gain_over_length | | r2_out_with_length minus r2_out_length
        gain_over_length_low, gain_over_length_high
        status | | decided, or not measured: nothing can be said about the layers
        why
        """,
        shared=_SHARED,
    ),
    table(
        "lasso_stability",
        "a pair of models, condition, length, position, target and layer",
        """
        pair, condition, length, position, target, layer, n, clusters
        half_samples | | half-samples of the clusters behind frequency
        permutations | | permutations of the target
        null_half_samples | | half-samples of each permutation
        frequency | | share of half-samples in which the LASSO chooses the layer
        null_frequency | | the same with permuted targets, mean over permutations
        null_95 | | 95th percentile over permutations of the largest layer's frequency
        p | | (1 + null maxima at or above frequency) / (1 + permutations)
        stable | | whether frequency is above null_95
        stable_layers | | number of stable layers
        layers_beyond_quarter | | stable layers beyond a quarter of all layers; 0 is sparse
        support, r2_out, r2_out_low, r2_out_high
        gain_over_length_low | | lower end of the interval of the LASSO's gain_over_length
        peak_layer | | layer where the forward patch at last_prompt moves base furthest
        distance_to_peak | layers | from peak_layer to the nearest stable layer
        status | | decided, or not measured: nothing can be said about the layers
        why
        """,
        shared=_SHARED,
    ),
    table(
        "localization_published",
        "a number that the paper prints",
        """
        table | | table of the paper
        subject | | model of the paper
        quantity | | name of the number
        value | | the number, in the unit of the column `unit`
        unit | | its unit
        low, high
        note | | what else the paper says of it
        """,
        shared={
            **_SHARED,
            "low": ("", "lower end of the interval, where the paper gives one"),
            "high": ("", "upper end of the interval, where the paper gives one"),
        },
        published=True,
    ),
)

_DRAWN = "actshift.studies.localization.figures"


def _figure(name: str, file: str, table: str, *beside: str) -> Figure:
    """A figure whose function has its name."""
    return Figure(
        name,
        (table,),
        f"{_DRAWN}.{file}:{name}",
        beside=beside,
        seen="actshift.studies.localization.answers:seen",
    )


FIGURES = (
    _figure("patch_forward", "patches", "patching", "controls", "localization_published"),
    _figure("patch_reverse", "patches", "patching", "controls"),
    _figure("patch_controls", "patches", "controls", "patching"),
    _figure("patch_interpolation", "patches", "interpolation"),
    _figure("patch_sources", "patches", "sources"),
    _figure("patch_low_rank", "patches", "low_rank", "localization_published"),
    _figure("patch_positions", "patches", "positions"),
    _figure("swap_shares", "patches", "block_swap", "localization_summary"),
    _figure("state_distances", "distances", "distances", "probe"),
    _figure("lasso_coefficients", "distances", "lasso", "localization_published"),
    _figure("lasso_stability", "distances", "lasso_stability"),
)


def _needs(config: Any) -> Iterator[str]:
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
        "Asks which layers hold the preference for the chosen answers, by putting states "
        "or weights of one model into the other. A patch of all positions contains every "
        "tuned block below it, so its curve rises by construction and does not show the "
        "share of a single layer. Exchanged weights and the last prompt token do show it. "
        "Controls: the receiver's own states, noise, random directions, and donors on "
        "another preference pair of the same or of the other condition. Harmful and "
        "harmless pairs are separate, because tuning moves their margins in opposite "
        "directions. A margin alone cannot separate preference from fluency: the tables "
        "also have log p of the chosen and of the rejected answer, and both fall where a "
        "patch does damage."
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
