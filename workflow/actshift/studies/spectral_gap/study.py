"""The spectral gap: tables and figures."""

from collections.abc import Iterator
from typing import Any

from actshift.models.sources import ABLITERATED
from actshift.studies.contract import Figure, Study, table

TABLES = (
    table(
        "spectral_gap",
        "",
        """
        pair, reference, layer, n, clusters, d, rank_S, sigma_1, sigma_r, norm_S, norm_honest,
        norm_unsafe, kappa, kappa_low, kappa_high, bound, kappa_over_bound, informative,
        status
        """,
    ),
    table(
        "spectral_gap_summary",
        "",
        """
        source, pair, reference, depth, layers, no_difference, rank_too_high, informative,
        above_8, kappa_median, kappa_max, kappa_over_bound_median, kappa_over_bound_max,
        rank_S_median, refused_harmful, on_topic_harmful, refused_harmless, on_topic_harmless,
        clusters_harmful, refused_harmful_honest, on_topic_harmful_honest,
        refused_harmless_honest, on_topic_harmless_honest
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
    """Yield what the configuration lacks."""
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
        "Asks whether the shift of the tuned model is set apart from the shift of an unsafe "
        "reference of the same base: kappa above 8 would make the published bound useful. "
        "Kappa is at most 2 / (eps r), so at rank 5 or more a small kappa is arithmetic and "
        "no evidence; such layers, and layers where the two do not differ, are counted "
        "apart. Ranges come from half-samples of clusters. It says nothing about references "
        "that were not measured, and on small models, whose ranks are small, a kappa above "
        "8 refutes nothing."
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
