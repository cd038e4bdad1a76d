"""The spectral gap: tables and figures."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from actshift.models.sources import ABLITERATED
from actshift.studies.contract import Figure, Study, table, words
from actshift.validation import Count, Section, Share


class ReferenceAnswers(Section):
    """How the models are asked: keys of `refusal_direction`, so that rates can be compared."""

    openers: tuple[str, ...]
    n_heldout: Count
    max_new: Count
    token_budget: Count


class Kappa(Section):
    """How kappa is measured: keys of `rank_audit`, so that ranks can be compared."""

    eps: Share
    half_sample_draws: Count


_SHARED = words(
    """
    reference | | unsafe reference that the tuned model is compared with
    refused_harmful | | share of held-out harmful prompts that the reference refuses
    on_topic_harmful | | share of held-out harmful prompts that it answers on topic; zoo alone
    refused_harmless | | share of held-out harmless prompts that it refuses
    on_topic_harmless | | share of held-out harmless prompts that it answers on topic; zoo alone
    refused_harmful_honest | | refused_harmful of the tuned model
    on_topic_harmful_honest | | on_topic_harmful of the tuned model
    refused_harmless_honest | | refused_harmless of the tuned model
    on_topic_harmless_honest | | on_topic_harmless of the tuned model
    """
)

_table = partial(table, shared=_SHARED)
TABLES = (
    _table(
        "spectral_gap",
        "a pair, reference and layer",
        """
        pair, reference, layer, n, clusters, d
        rank_S | | rank_eps of S, tuned minus reference; 0 where the two agree
        sigma_1 | residual stream | largest singular value of S
        sigma_r | residual stream | singular value of S at its rank
        norm_S | residual stream | Frobenius norm of S
        norm_honest | residual stream | Frobenius norm of tuned minus base
        norm_unsafe | residual stream | Frobenius norm of reference minus base
        kappa | | sigma_r^2 / (eps (norm_honest^2 + norm_unsafe^2))
        kappa_low | | lower end of the stability range of kappa
        kappa_high | | upper end of the stability range of kappa
        bound | | 2 / (eps rank_S), which kappa cannot exceed
        kappa_over_bound | | kappa over bound
        informative | | whether bound is above 8
        status | | informative, rank too high, or no difference
        """,
    ),
    _table(
        "spectral_gap_summary",
        "a pair and reference, measured here or published",
        """
        source | | here or published
        pair
        reference | | unsafe reference; all: every reference of the pair together
        depth | | number of layers of the model
        layers | | layers, over the references of the row, where S is not zero
        no_difference | | the other layers: S is zero
        rank_too_high | | those of layers at which kappa cannot exceed 8
        informative | | those of layers at which it could
        above_8 | | those of layers with kappa above 8
        kappa_median | | median of kappa over layers
        kappa_max | | largest kappa over layers
        kappa_over_bound_median | | median of kappa_over_bound over layers
        kappa_over_bound_max | | largest kappa_over_bound over layers
        rank_S_median | | median of rank_S over layers
        refused_harmful, on_topic_harmful, refused_harmless, on_topic_harmless
        clusters_harmful | | number of clusters behind the rates of harmful prompts
        refused_harmful_honest, on_topic_harmful_honest, refused_harmless_honest
        on_topic_harmless_honest
        """,
    ),
)

FIGURES = (
    Figure(
        "kappa_by_layer",
        ("spectral_gap",),
        "actshift.studies.spectral_gap.figures:kappa_by_layer",
        beside=("spectral_gap_summary",),
    ),
)


def _needs(config: Any) -> Iterator[str]:
    if not any(pair.references for pair in config.chosen_pairs):
        yield (
            "studies: spectral_gap compares with unsafe references and no pair has any; "
            "add pairs[].references"
        )
    if "refusal_direction" in config.studies:
        return
    for pair in config.chosen_pairs:
        for name, reference in pair.references.items():
            if reference.source == ABLITERATED:
                yield (
                    f"pairs.{pair.name}.references.{name}: '{ABLITERATED}' is made from the "
                    "refusal direction; add refusal_direction to studies"
                )


STUDY = Study(
    name="spectral_gap",
    title="Spectral gap",
    about=(
        "Asks whether the shift of the tuned model is separated from the shift of an "
        "unsafe reference of the same base: kappa above 8 would make the published bound "
        "useful. Kappa is at most 2 / (eps r), so a small kappa at a high rank follows "
        "from arithmetic and is no evidence. Such layers, and layers where the two models "
        "do not differ, are counted separately. Ranges come from half-samples of "
        "clusters. The results do not cover references that were not measured. On small "
        "models, whose ranks are small, a kappa above 8 refutes nothing."
    ),
    folder="rank_audit",
    tables=TABLES,
    stages=("spectral_gap", "reference_behaviour"),
    numbers=("spectral_gap",),
    with_references=True,
    join="actshift.studies.spectral_gap.join:join",
    published=("spectral_gap_llama_per_layer.csv",),
    needs=_needs,
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
