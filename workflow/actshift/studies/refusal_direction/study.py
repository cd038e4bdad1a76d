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
    n_fit: Count = Field(default=128, description="prompts per condition for computing directions")
    n_select: Count = Field(default=32, description="prompts per condition for the choice")
    n_heldout: Count = Field(default=100, description="prompts per condition for measuring effects")
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
        default=32768, description="padded tokens in a batch of prompts x lanes"
    )


TABLES = (
    table(
        "refusal_effect",
        "a pair, condition and edit, of the chosen direction or of random ones",
        """
        pair
        condition | | harmful or harmless prompts, held out
        edit | | ablate, add or subtract
        control | | empty: the chosen direction; random: directions of the same norm
        draws | | number of random directions; empty for the chosen one
        n, clusters
        refused | | share of answers refused by keyword under the edit (random: mean of draws)
        plain_refused | | the same share without an edit
        change | | refused minus plain_refused
        low | | lower end of the 95 % interval of change
        high | | upper end of the 95 % interval of change
        p_sign_flip | | two-sided p-value of change, sign flips of whole clusters
        p_mcnemar_independent | | exact McNemar, as if prompts were independent; chosen one alone
        draws_low | | smallest refused of a random direction
        draws_high | | largest refused of a random direction
        on_topic | | share of answers on topic under the edit; zoo alone
        kl_first | nats | mean KL of the first answer token from the plain model
        ended | | share of answers that ended by themselves under the edit
        plain_ended | | the same share without an edit
        """,
    ),
    table(
        "refusal_direction",
        "a pair and candidate (layer and position)",
        """
        pair
        layer | | block whose input the candidate is read from, counted from 0
        position | | template token after the instruction, -1 is the last
        norm | residual stream | norm of the difference of means
        bypass | nats | mean refusal log-odds of harmful select prompts with it ablated
        induce | nats | mean refusal log-odds of harmless select prompts with it added
        kl | nats | mean KL from the plain model of harmless select prompts with it ablated
        passes_kl | | whether kl is at most max_kl
        passes_induce | | whether induce is at least min_induce
        passes_layer | | whether layer is below layer_share of the depth
        chosen | | whether it is the chosen candidate
        verdict | | of the chosen candidate: passes, or none passes; empty for the others
        n_fit_harmful | prompts | harmful fit prompts that the model refuses
        n_fit_harmless | prompts | harmless fit prompts that the model does not refuse
        n_select_harmful | prompts | harmful select prompts that the model refuses
        n_select_harmless | prompts | harmless select prompts that the model does not refuse
        """,
    ),
)

_DRAW = "actshift.studies.refusal_direction.figures"
FIGURES = (
    Figure("refusal_effect", ("refusal_effect",), f"{_DRAW}:refusal_effect"),
    Figure("refusal_candidates", ("refusal_direction",), f"{_DRAW}:refusal_candidates"),
)

STUDY = Study(
    name="refusal_direction",
    title="Refusal direction",
    about=(
        "Asks whether one direction, the difference of means between harmful and harmless "
        "prompts, carries refusal: removing it should end refusals, and adding it should "
        "cause them. Layer and position are chosen on separate prompts, and effects are "
        "measured on held-out clusters, beside random directions of equal norm. An answer "
        "without a refusal may still be off topic, so the rate on topic is reported too. "
        "Where no candidate passes the published filters, as can happen in a model of few "
        "layers, the least violating candidate is shown and marked."
    ),
    folder="rank_audit",
    tables=TABLES,
    settings=RefusalDirection,
    stages=("refusal_direction",),
    join="actshift.studies.refusal_direction.tables:join",
    answers=Answers("actshift.studies.refusal_direction.answers:points", asks=("refusal_effect",)),
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
