"""Ablation of the shift's directions: settings, tables, figures and answers."""

from typing import Annotated

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table
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
    n_heldout: Count = Field(default=100, description="held-out prompts a condition")
    n_fitted: Count = Field(
        default=100, description="prompts a condition of the protocol as published"
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
        default=32768, description="padded tokens a batch of prompts x lanes"
    )


TABLES = (
    table(
        "ablation_sweep",
        "",
        """
        pair, protocol, band, layers, frame, edit, k, d, k_over_d, draws, energy_removed,
        energy_removed_harmless, n, clusters, refusal, refusal_low, refusal_high,
        plain_refusal, refusal_change, refusal_change_low, refusal_change_high, p_sign_flip,
        p_mcnemar_independent, design_effect, complied, complied_low, complied_high,
        plain_complied, complied_gain, complied_gain_over_harmless, complied_gain_low,
        complied_gain_high, p_gain, harmless_on_topic, plain_harmless_on_topic,
        harmless_refusal, random_refusal_low, random_refusal_median, random_refusal_high,
        beats_random, inflation, inflation_low, inflation_high, judged, status, why, primary
        """,
    ),
    table(
        "ablation_by_category",
        "",
        """
        pair, category, band, frame, edit, k, draws, n, clusters, plain_refusal, refusal,
        refusal_low, refusal_high, complied
        """,
    ),
    table(
        "direction_ablation",
        "",
        """
        pair, band, frame, edit, kind, directions, k, n, clusters, refusal, refusal_low,
        refusal_high, plain_refusal, refusal_change, refusal_change_low, refusal_change_high,
        p_sign_flip, p_mcnemar_independent, complied, harmless_on_topic, energy_removed,
        self_cosine_min, interaction, judged, status, why
        """,
    ),
    table(
        "ordering",
        "",
        """
        pair, band, frame, edit, test, stable, earlier, later, earlier_value, later_value,
        difference, low, high, p, p_holm, exceeds, pairs_tested, kendall_tau, judged, status,
        why
        """,
    ),
    table(
        "substitution",
        "",
        """
        pair, lane, receiver, donor, band, layers, frame, k, d, k_over_d, draws, shift_share,
        n, clusters, refusal, refusal_low, refusal_high, plain_refusal, donor_refusal,
        refusal_change, refusal_change_low, refusal_change_high, share_of_gap, p_sign_flip,
        p_mcnemar_independent, complied, harmless_on_topic, harmless_refusal,
        random_refusal_low, random_refusal_median, random_refusal_high, judged, status, why,
        primary
        """,
    ),
    table(
        "old_or_new",
        "",
        """
        pair, direction, band, edit, cos_with_tuned, energy_removed, n, clusters, refusal,
        refusal_low, refusal_high, plain_refusal, refusal_change, refusal_change_low,
        refusal_change_high, p_sign_flip, p_mcnemar_independent, complied, harmless_on_topic,
        random_refusal_median, judged, status, why
        """,
    ),
    table(
        "side_effects",
        "",
        """
        pair, experiment, frame, edit, band, k, directions, draws, n, clusters, over_refusal,
        over_refusal_change, over_refusal_change_low, over_refusal_change_high, p_sign_flip,
        on_topic, on_topic_change, on_topic_change_low, on_topic_change_high, kl_first, loss,
        loss_change, distinct_2, ended
        """,
    ),
    table(
        "judge",
        "",
        """
        pair, classifier, lane, k, condition, keyword, judge, n, opener_then_complied
        """,
        made_by="judge",
    ),
    table(
        "judge_agreement",
        "",
        """
        pair, classifier, primary, condition, lanes, n, clusters, keyword_refused,
        judge_refused, judge_unclear, opener_then_complied, agreement, low, high
        """,
        made_by="judge",
    ),
    table(
        "ablation_published",
        "",
        """
        family, matrix, band, kind, k, directions, refusal, low, high, random_refusal
        """,
        published=True,
    ),
)

FIGURES = (
    Figure(
        "ablation_curves",
        ("ablation_sweep",),
        "actshift.studies.ablation.figures:ablation_curves",
        beside=("ablation_published",),
    ),
    Figure(
        "direction_bars",
        ("direction_ablation",),
        "actshift.studies.ablation.ordering_figures:direction_bars",
        beside=("ordering", "ablation_sweep"),
    ),
    Figure(
        "side_effects",
        ("side_effects",),
        "actshift.studies.ablation.figures:side_effects",
        beside=("ablation_sweep",),
    ),
)

STUDY = Study(
    name="ablation",
    title="Ablation of the shift's directions",
    about=(
        "Asks whether the shift's leading directions cause refusal. The decisive control is "
        "the same number of directions of the shift on harmless prompts; beside it stand "
        "principal directions of the activations and random draws, projection to zero "
        "(published) and to the harmless mean. Prompts are held out from the fit. Cells "
        "where the random median loses more than 10 points of refusal or harmless answers "
        "stay on topic in under 80 % read broken and decide nothing, nor do cells with k "
        "above d / 8. Verdicts are about the named pair and seed; lost refusals alone are "
        "no evidence that a model complies."
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
