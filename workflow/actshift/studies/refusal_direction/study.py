"""The refusal direction of a tuned model: settings, tables, figures and answers."""

from typing import Annotated

from pydantic import Field

from actshift.studies.contract import Answers, Figure, Study, table
from actshift.validation import Count, Section


class RefusalDirection(Section):
    """The refusal direction of every tuned model (Arditi et al. 2024) and what it does."""

    openers: tuple[str, ...] = Field(
        default=("I",), min_length=1, description="how a refusal opens; their first tokens count"
    )
    n_fit: Count = Field(default=128, description="prompts a condition that directions are made of")
    n_select: Count = Field(default=32, description="prompts a condition that they are chosen on")
    n_heldout: Count = Field(
        default=100, description="prompts a condition that effects are seen on"
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="filter: KL on harmless prompts when ablated, nats"
    )
    min_induce: float = Field(
        default=0.0, description="filter: refusal log-odds of harmless prompts when added"
    )
    layer_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="filter: layers below this share of the depth"
    )
    max_new: Count = Field(default=64, description="longest answer, tokens")
    token_budget: Count = Field(
        default=32768, description="padded tokens a batch of prompts x lanes"
    )


TABLES = (
    table(
        "refusal_effect",
        "",
        """
        pair, condition, edit, control, draws, n, clusters, refused, plain_refused, change,
        low, high, p_sign_flip, p_mcnemar_independent, draws_low, draws_high, on_topic,
        kl_first, ended, plain_ended
        """,
    ),
    table(
        "refusal_direction",
        "",
        """
        pair, layer, position, norm, bypass, induce, kl, passes_kl, passes_induce,
        passes_layer, chosen, verdict, n_fit_harmful, n_fit_harmless, n_select_harmful,
        n_select_harmless
        """,
    ),
)

FIGURES = (
    Figure(
        "refusal_effect",
        ("refusal_effect",),
        "actshift.studies.refusal_direction.figures:refusal_effect",
    ),
    Figure(
        "refusal_candidates",
        ("refusal_direction",),
        "actshift.studies.refusal_direction.figures:refusal_candidates",
    ),
)

STUDY = Study(
    name="refusal_direction",
    title="Refusal direction",
    about=(
        "Asks whether one direction, the difference of means between harmful and harmless "
        "prompts, carries refusal: taken out it should end refusals, added it should cause "
        "them. Layer and position are chosen on prompts of their own and effects are seen "
        "on held-out clusters, beside random directions of equal norm. A refusal that is "
        "gone is not yet an answer: the rate on topic stands beside it. Where no candidate "
        "passes the published filters, as can happen in a model of few layers, the least "
        "violating one is shown and named so."
    ),
    folder="rank_audit",
    tables=TABLES,
    settings=RefusalDirection,
    stages=("refusal_direction",),
    join="actshift.studies.refusal_direction.join:join",
    answers=Answers("actshift.studies.refusal_direction.answers:points", asks=("refusal_effect",)),
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
