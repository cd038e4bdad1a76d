"""Ablation of the shift's directions: settings, tables, figures and answers."""

from typing import Annotated

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table, words
from actshift.validation import Count, Rising, Section


class Ablation(Section):
    """What ablating the leading directions of the shift does."""

    ks: Annotated[tuple[Count, ...], Rising] = Field(
        default=(1, 3, 5, 10, 20, 50),
        min_length=1,
        description="numbers of leading directions; those above the width are left out",
    )
    directions: Count = Field(default=10, description="single directions that are ablated alone")
    random_draws: Count = Field(default=20, description="random frames beside the fitted ones")
    patch_draws: Count = Field(
        default=5, description="random frames of the substitution and mode-toggle lanes"
    )
    n_heldout: Count = Field(default=100, description="held-out prompts of each condition")
    n_fitted: Count = Field(
        default=100, description="prompts of each condition, published protocol"
    )
    published_protocol: bool = Field(
        default=True, description="also ask the prompts that the frames were fitted on"
    )
    plain_text: str | None = Field(
        default=None,
        description="file of plain texts, one a line; none: zoo sentences, else harmless prompts",
    )
    max_new: Count = Field(default=64, description="longest answer, tokens (published: 100)")
    token_budget: Count = Field(
        default=32768, description="padded tokens in a batch of prompts x lanes"
    )


#: Columns that several tables have.
_SHARED = words(
    """
    band | | layers that are edited: narrow (.45 to .70 of the depth) or wide (.30 to .85)
    layers | | decoder blocks that are edited, counted from 0
    frame | | matrix that the directions are taken from, such as template or random
    edit | | zero, mean (projection to the harmless mean) or patch (the donor's components)
    k | | number of directions in the span
    k_over_d | | k over d
    draws | | random draws that the row is the mean of; empty where nothing is drawn
    n | prompts | number of harmful prompts
    refusal | | share of harmful prompts refused with the edit, by keyword
    plain_refusal | | share of harmful prompts refused without the edit
    refusal_change | | refusal minus plain_refusal
    p_sign_flip | | p-value of refusal_change: sign flips by cluster, two-sided
    p_mcnemar_independent | | exact McNemar p-value, as if prompts were independent; one lane alone
    complied | | share of harmful prompts answered on topic and not refused; empty without a judge
    harmless_on_topic | | share of harmless prompts answered on topic with the edit
    harmless_refusal | | share of harmless prompts refused with the edit
    energy_removed | | share of the energy of held-out harmful activations in the span
    random_refusal_low | | 5th percentile of refusal over random draws of the same or next larger k
    random_refusal_median | | median of refusal over the same random draws
    random_refusal_high | | 95th percentile of refusal over the same random draws
    judged | | whether the topic of every answer could be judged
    status | | decided; else broken, no control, wide or no judge, the first that applies
    why | | every reason, in words
    primary | | whether the row is the one that was named before any run and decides claims
    category | | category of the prompts, such as a kind of harm
    opener_then_complied | | answers that open with a refusal keyword and then comply
    classifier | | topicality (zoo pairs) or llm (a chat model)
    """
)

TABLES = (
    table(
        "ablation_sweep",
        "a pair, protocol, band, frame, edit and k",
        """
        pair
        protocol | | heldout, or fitted: the prompts that the frames were fitted on, as published
        band, layers, frame, edit, k, d, k_over_d, draws, energy_removed
        energy_removed_harmless | | the same share of held-out harmless activations
        n, clusters, refusal, refusal_low, refusal_high, plain_refusal
        refusal_change, refusal_change_low, refusal_change_high
        p_sign_flip, p_mcnemar_independent
        design_effect | | variance of refusal_change over what it would be for independent prompts
        complied, complied_low, complied_high
        plain_complied | | complied without the edit
        complied_gain | | complied minus plain_complied
        complied_gain_over_harmless | | complied minus that of template_harmless in the same cell
        complied_gain_low | | lower end of the interval of `complied_gain_over_harmless`
        complied_gain_high | | upper end of the interval of `complied_gain_over_harmless`
        p_gain | | p-value of complied_gain_over_harmless: sign flips by cluster, two-sided
        harmless_on_topic
        plain_harmless_on_topic | | share of harmless prompts answered on topic without the edit
        harmless_refusal, random_refusal_low, random_refusal_median, random_refusal_high
        beats_random | | random draws that leave more refusal, such as 17 of 20
        inflation | | fitted rows: refusal_change there minus held out; below 0: larger there
        inflation_low, inflation_high, judged, status, why, primary
        """,
        shared=_SHARED,
    ),
    table(
        "ablation_by_category",
        "a pair, category, frame and k of 1, 3 or 5; held-out prompts, primary band and edit",
        """
        pair, category, band, frame, edit, k, draws, n, clusters, plain_refusal, refusal,
        refusal_low, refusal_high, complied
        """,
        shared=_SHARED,
    ),
    table(
        "direction_ablation",
        "a pair, frame and set of single directions",
        """
        pair, band, frame, edit
        kind | | single, pair, leave_one_out (four of the first five) or all_five
        directions | | the directions of the set, counted from 1, such as 1+2
        k, n, clusters, refusal, refusal_low, refusal_high, plain_refusal
        refusal_change, refusal_change_low, refusal_change_high
        p_sign_flip, p_mcnemar_independent, complied, harmless_on_topic, energy_removed
        self_cosine_min | | smallest cosine of a member with itself over resamples, over layers
        interaction | | refusal_change minus the sum of that of its members alone
        judged, status, why
        """,
        shared=_SHARED,
    ),
    table(
        "ordering",
        "a pair, test, curve and two of its steps",
        """
        pair, band, frame, edit
        test | | inversion (single directions) or monotonicity (k of the sweep)
        stable | | whether both directions are definite: cosine with themselves at least .9
        earlier | | number of the earlier direction, or the smaller k
        later | | number of the later direction, or the larger k
        earlier_value | | refusal taken away by it (inversion), or left with it (monotonicity)
        later_value | | the same of the later direction or larger k
        difference | | later_value minus earlier_value
        low | | lower end of its interval, at its step of Holm's procedure; empty if not tested
        high | | upper end of its interval, for all tested pairs of the curve at once
        p | | one-sided p-value of difference: sign flips by cluster
        p_holm | | the same after Holm's correction over the tested pairs of the curve
        exceeds | | whether difference is above .05, low above 0 and p_holm at most .05
        pairs_tested | | tested pairs of the curve
        kendall_tau | | Kendall's tau of the curve: 1 where effects fall in order; not tested
        judged
        status | | decided; else what keeps one of the two from a test, unstable among it
        why
        """,
        shared=_SHARED,
    ),
    table(
        "substitution",
        "a pair, experiment, band, frame and k",
        """
        pair
        lane | | substitution (the tuned model is edited) or mode_toggle (the base is)
        receiver | | model that is edited: base or tuned
        donor | | model whose components it gets
        band, layers, frame, k, d, k_over_d, draws
        shift_share | | share of the energy of the held-out template shift in the span
        n, clusters, refusal, refusal_low, refusal_high, plain_refusal
        donor_refusal | | share of harmful prompts that the donor refuses
        refusal_change, refusal_change_low, refusal_change_high
        share_of_gap | | refusal_change over donor_refusal minus plain_refusal; empty if no gap
        p_sign_flip, p_mcnemar_independent, complied, harmless_on_topic, harmless_refusal
        random_refusal_low, random_refusal_median, random_refusal_high, judged
        status | | decided; else no gap, broken, no control, wide or no judge
        why, primary
        """,
        shared=_SHARED,
    ),
    table(
        "old_or_new",
        "a pair, direction, band and edit",
        """
        pair
        direction | | refusal direction of the tuned model, of base, or new: tuned without base's
        band, edit
        cos_with_tuned | | absolute cosine with the tuned model's direction, mean over layers
        energy_removed, n, clusters, refusal, refusal_low, refusal_high, plain_refusal
        refusal_change, refusal_change_low, refusal_change_high
        p_sign_flip, p_mcnemar_independent, complied, harmless_on_topic
        random_refusal_median, judged, status, why
        """,
        shared=_SHARED,
    ),
    table(
        "side_effects",
        "a pair and cell of any experiment, on harmless prompts and plain text",
        """
        pair
        experiment | | sweep, direction, old_or_new, substitution or mode_toggle
        frame, edit, band, k
        directions | | which single directions, or whose direction; empty for the leading k
        draws
        n | prompts | number of harmless prompts
        clusters
        over_refusal | | share of harmless prompts refused with the edit
        over_refusal_change | | the same minus the share without the edit
        over_refusal_change_low, over_refusal_change_high
        p_sign_flip | | p-value of over_refusal_change: sign flips by cluster, two-sided
        on_topic | | share of harmless prompts answered on topic with the edit
        on_topic_change | | the same minus the share without the edit
        on_topic_change_low, on_topic_change_high
        kl_first | nats | KL divergence of the first token from the unedited model, mean
        loss | nats a token | loss on plain text; tuned model alone
        loss_change | nats a token | loss minus that of the unedited model
        distinct_2 | | share of an answer's bigrams that are distinct, mean
        ended | | share of answers that ended by themselves
        """,
        shared=_SHARED,
    ),
    table(
        "judge",
        "a pair, classifier, lane, condition, keyword verdict and judge's verdict",
        """
        pair, classifier
        lane | | plain, or a lane of the sweep
        k | | directions projected out in the lane; 0 for plain
        condition | | harmful or harmless prompts
        keyword | | verdict by keyword: refused or not refused
        judge | | verdict of the classifier: refused, complied or unclear
        n | answers | number of answers with both verdicts
        opener_then_complied
        """,
        shared=_SHARED,
        made_by="judge",
    ),
    table(
        "judge_agreement",
        "a pair, classifier and condition, over its lanes",
        """
        pair, classifier
        primary | | whether the claim reads it: the chat model's row, else that of topicality
        condition | | harmful or harmless prompts
        lanes | | number of lanes
        n | answers | number of judged answers
        clusters
        keyword_refused | | share refused by keyword
        judge_refused | | share that the classifier calls refused
        judge_unclear | | share that the classifier calls unclear
        opener_then_complied
        agreement | | share where both say refused, or not refused and complied
        low | | lower end of its Wilson interval at n over the design effect
        high | | upper end of the same interval
        """,
        shared=_SHARED,
        made_by="judge",
    ),
    table(
        "ablation_published",
        "a published ablation: model family, matrix, band and directions",
        """
        family | | model family
        matrix | | naive, template or did
        band
        kind | | cumulative (the leading k directions) or single
        k | | number of directions; 0 is the unedited model
        directions | | number of the single direction
        refusal | | published share of harmful prompts refused
        low | | lower end of its Wilson interval, 100 independent prompts
        high | | upper end of the same interval
        random_refusal | | the same share under one random draw
        """,
        shared=_SHARED,
        published=True,
    ),
)

_DRAW = "actshift.studies.ablation.figures"
FIGURES = (
    Figure(
        "ablation_curves",
        ("ablation_sweep",),
        f"{_DRAW}:ablation_curves",
        beside=("ablation_published",),
    ),
    Figure(
        "direction_bars",
        ("direction_ablation",),
        f"{_DRAW}:direction_bars",
        beside=("ordering", "ablation_sweep"),
    ),
    Figure("side_effects", ("side_effects",), f"{_DRAW}:side_effects", beside=("ablation_sweep",)),
)

STUDY = Study(
    name="ablation",
    title="Ablation of the shift's directions",
    about=(
        "Asks whether the leading directions of the shift cause refusal. The decisive "
        "control is the same number of directions of the shift on harmless prompts. "
        "Further controls are principal directions of the activations and random "
        "directions. Directions are projected to zero (published) or to the harmless "
        "mean. Prompts are held out from the fit. A cell decides nothing where the median "
        "random draw removes more than 10 points of refusal, where fewer than 80 % of "
        "harmless answers stay on topic (both read broken), or where k is above d / 8. "
        "Verdicts are about the named pair and seed. Fewer refusals alone are no evidence "
        "that a model complies."
    ),
    folder="rank_audit",
    tables=TABLES,
    settings=Ablation,
    stages=("ablation",),
    join="actshift.studies.ablation.join:join",
    published=("ablation_sweep.csv", "per_direction_ablation.csv"),
    answers=Answers("actshift.studies.ablation.answers:points", asks=("ablation_sweep",)),
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
