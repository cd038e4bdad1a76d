"""The rank audit: how low-rank is the shift, how much of it is template, what generalises.

Tests 1 and 3 of "Effective-rank audit" (arXiv 2605.24583), as published and beside it the
fairer versions. Reads activation stores, writes tables, never sees a model.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from actshift.engine.stores import CONDITIONS, PairStores
from actshift.prompts.records import Prompt
from actshift.studies.rank_audit.concepts import ConceptDraws, concept_baseline_rows
from actshift.studies.rank_audit.cosine import category_rows, control_algebra, cosine_rows
from actshift.studies.rank_audit.inputs import AlignedStreams, Selection, required_streams, select
from actshift.studies.rank_audit.layer import Draws, load_layer, make_draws
from actshift.studies.rank_audit.pooling import pooling_rows
from actshift.studies.rank_audit.settings import RankAuditSettings
from actshift.studies.rank_audit.spectra import (
    cumulative_rows,
    eps_rows,
    heldout_rows,
    rank_rows,
    with_bands,
)
from actshift.studies.rank_audit.stability import (
    bootstrap_rows,
    half_ranks,
    inflation_rows,
    n_sweep_rows,
)
from actshift.studies.rank_audit.study import COLUMNS
from actshift.studies.rank_audit.summary import measured_summary

Row = dict[str, object]
#: Every table of the study, in the order of the docs page.
TABLES = tuple(COLUMNS)


def audit_pair(
    stores: PairStores,
    prompts: Mapping[str, Sequence[Prompt]],
    settings: RankAuditSettings,
    *,
    pair: str,
) -> dict[str, pd.DataFrame]:
    """All tables of the rank audit for one pair.

    Layers are read one at a time; index draws are shared by all of them, so a difference between
    layers or matrices is not resampling noise.

    Args:
        stores: Opens the pair's streams (`required_streams` lists them).
        prompts: Prompt sets by name, in file order ("first n" follows it).
        settings: What decides the numbers.
        pair: Name of the pair, the first column of every table.

    Returns:
        One tidy table a name in `TABLES`; a table without rows still has its columns.

    Raises:
        UserError: Prompts or stores do not fit together (depth, width, rows, splits).
    """
    selection = select(prompts, settings)
    streams = AlignedStreams(stores, required_streams(prompts, settings))
    draws = {
        name: make_draws(selection.fit[name], settings, stream=number)
        for number, name in enumerate(CONDITIONS)
    }
    subsets = {"template": ConceptDraws(selection.fit["harmful"].clusters, settings, stream=2)}
    for number, concept in enumerate(selection.concepts, start=3):
        subsets[concept.concept] = ConceptDraws(concept.clusters, settings, stream=number)
    rows: dict[str, list[Row]] = {name: [] for name in TABLES if name != "summary"}
    for layer in streams.layers:
        found = _layer_rows(streams, selection, draws, subsets, layer=layer, settings=settings)
        for name, part in found.items():
            rows[name] += part
    tables = {name: _table(part, name, pair) for name, part in rows.items()}
    tables["eps_sensitivity"] = with_bands(tables["eps_sensitivity"], depth=max(streams.layers) + 1)
    tables["summary"] = measured_summary(tables["rank"], tables["cosine"], tables["pooling"])
    return {name: tables[name] for name in TABLES}


def _layer_rows(
    streams: AlignedStreams,
    selection: Selection,
    draws: Mapping[str, Draws],
    subsets: Mapping[str, ConceptDraws],
    *,
    layer: int,
    settings: RankAuditSettings,
) -> dict[str, list[Row]]:
    data = load_layer(streams, selection, draws, layer=layer, settings=settings)
    halves = half_ranks(data, settings)
    control = next(
        (item for item in selection.concepts if item.concept == settings.control_concept), None
    )
    return {
        "rank": rank_rows(data, settings),
        "cumulative_variance": cumulative_rows(data, settings),
        "heldout_rank": heldout_rows(data, selection, settings),
        "inflation": inflation_rows(data, halves, settings),
        "cosine": cosine_rows(data, control_algebra(streams, control, layer=layer)),
        "cosine_by_category": category_rows(data),
        "bootstrap": bootstrap_rows(data, halves, settings),
        "eps_sensitivity": eps_rows(data, settings),
        "n_sweep": n_sweep_rows(data, settings),
        "concept_baseline": concept_baseline_rows(
            streams, data, subsets, selection.concepts, settings
        ),
        "pooling": pooling_rows(streams, selection, data, settings),
    }


def _table(rows: Sequence[Row], name: str, pair: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS[name] if c != "pair"])
    table.insert(0, "pair", pair)
    return table
