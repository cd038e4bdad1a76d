"""Rank audit of one pair: activation stores and prompt sets in, a folder of tables out.

How low-rank is the shift, how much of it is template, what generalises: the published protocol,
and beside it the fairer versions. No model is loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.engine.context import JobContext
from actshift.engine.stores import CONDITIONS, FolderStores, PairStores
from actshift.io.atomic import publishing
from actshift.io.tables import write_table
from actshift.prompts.records import Prompt, read_prompts
from actshift.studies.rank_audit.concepts import ConceptDraws, concept_baseline_rows
from actshift.studies.rank_audit.join import measured_summary
from actshift.studies.rank_audit.layer import (
    AlignedStreams,
    Draws,
    Selection,
    load_layer,
    make_draws,
    required_streams,
    select,
)
from actshift.studies.rank_audit.study import COLUMNS, RankAudit
from actshift.studies.rank_audit.tables import (
    bootstrap_rows,
    category_rows,
    control_algebra,
    cosine_rows,
    cumulative_rows,
    eps_rows,
    half_ranks,
    heldout_rows,
    inflation_rows,
    n_sweep_rows,
    pooling_rows,
    rank_rows,
    with_bands,
)

Row = dict[str, object]
#: Every table of a pair, in the order of the page; `pairs` is made when pairs are joined.
TABLES = tuple(name for name in COLUMNS if name != "pairs")


def rank_audit(
    inputs: Mapping[str, Any], *, settings: RankAudit, context: JobContext, out: Path
) -> None:
    """Write the tables of one pair.

    Args:
        inputs: `stores`, folders of its activation stores; prompt sets of the conditions `harmful`
            and `harmless` and of the `concepts`.
        settings: The study's section of the configuration.
        context: The job; its seed is that of every draw.
        out: Folder of the tables; it appears whole or not at all.

    Raises:
        UserError: Prompts, stores and settings do not fit together.
    """
    pair = context.pair
    prompts = {name: inputs[name] for name in (*CONDITIONS, "concepts")}
    tables = audit_pair(
        FolderStores(inputs["stores"]),
        {path.stem: read_prompts(path) for path in prompts.values()},
        settings,
        pair=pair,
        sets={name: prompts[name].stem for name in CONDITIONS},
        seed=context.seed,
    )
    with publishing(out) as partial:
        partial.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            write_table(table, partial / f"{name}.csv")
            print(f"{pair}: {name}.csv, {len(table)} rows")


def audit_pair(
    stores: PairStores,
    prompts: Mapping[str, Sequence[Prompt]],
    settings: RankAudit,
    *,
    pair: str,
    sets: Mapping[str, str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """All tables of the rank audit for one pair; a table without rows still has its columns.

    Layers are read one at a time; index draws are shared by all of them, so a difference between
    layers or matrices is not resampling noise.

    Args:
        stores: Opens the pair's streams (`required_streams` lists them).
        prompts: Prompt sets by name, in file order ("first n" follows it).
        settings: The study's section of the configuration.
        pair: Name of the pair, the first column of every table.
        sets: Name of the prompt set of each condition.
        seed: Seed of every draw.

    Source: arXiv 2605.24583, tests 1 and 3.

    Raises:
        UserError: Prompts or stores do not fit together (depth, width, rows, splits).
    """
    selection = select(prompts, sets, concepts=settings.concepts)
    needed = required_streams(selection, control=settings.control_concept)
    streams = AlignedStreams(stores, needed)
    draws = {
        name: make_draws(selection.fit[name], settings, seed=seed, stream=number)
        for number, name in enumerate(CONDITIONS)
    }
    harmful = selection.fit["harmful"].clusters
    subsets = {"template": ConceptDraws(harmful, settings, seed=seed, stream=2)}
    for number, concept in enumerate(selection.concepts, start=3):
        subsets[concept.concept] = ConceptDraws(
            concept.clusters, settings, seed=seed, stream=number
        )
    rows: dict[str, list[Row]] = {name: [] for name in TABLES if name != "summary"}
    for layer in streams.layers:
        of_layer = _layer_rows(
            streams, selection, draws, subsets, layer=layer, settings=settings, seed=seed
        )
        for name, part in of_layer.items():
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
    settings: RankAudit,
    seed: int,
) -> dict[str, list[Row]]:
    data = load_layer(streams, selection, draws, layer=layer, settings=settings)
    halves = half_ranks(data, settings)
    control = next(
        (item for item in selection.concepts if item.concept == settings.control_concept), None
    )
    return {
        "rank": rank_rows(data, settings),
        "cumulative_variance": cumulative_rows(data, settings),
        "heldout_rank": heldout_rows(data, selection, settings, seed=seed),
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
