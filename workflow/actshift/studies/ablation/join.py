"""Ablation tables of all pairs: rows and lanes -> seven tables, and the published one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.ablation.study import COLUMNS, STUDY
from actshift.studies.ablation.tables.answers import READ, Rows, answers_of, cells_of
from actshift.studies.ablation.tables.ordering import ordering_rows
from actshift.studies.ablation.tables.rows import (
    MODELS,
    add_inflation,
    category_rows,
    direction_rows,
    losses_by_lane,
    old_or_new_rows,
    self_cosines,
    side_effect_rows,
    substitution_rows,
    sweep_rows,
)
from actshift.zoo.language import Language, language

#: Matrix names of the release. Its Llama and Gemma sweeps hand naive shifts to the ablation, where
#: the paper's text says template.
_MATRICES = {"as_released": "naive", "M_template": "template", "M_DiD": "did"}
#: The sweep's names; the single directions were run in the narrow band only.
_BANDS = {"narrow_45_70": "narrow", "wide_30_85": "wide"}
#: Row files of a pair; `fitted` stands there only with the published protocol.
_ROWS = ("heldout", "fitted", *MODELS)
#: The answers that hold the plain lane of each model.
_PLAIN_OF = {"tuned": "heldout", "base": "mode_toggle"}


@dataclass(frozen=True, eq=False)
class PairFiles:
    """What the rule `ablation` leaves of one pair; the rows of the intervene stage by name."""

    lanes: pd.DataFrame
    directions: pd.DataFrame
    rows: Mapping[str, pd.DataFrame]
    losses: pd.DataFrame | None = None


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Judge the rows of all pairs; answers of pairs outside the zoo are not judged by topic.

    Raises:
        UserError: No pair has its folder.
    """

    def rows_of(pair: str, folder: Path) -> Mapping[str, Rows]:
        size = context.zoo_sizes.get(pair)
        lang = None if size is None else language(size)
        return pair_tables(_read(folder), pair=pair, lang=lang, seed=context.seed)

    tables = join_rows(context.folders["ablation"], rows_of, COLUMNS, rule="ablation")
    released = [pd.read_csv(context.published / name) for name in STUDY.published]
    return {**tables, "ablation_published": published_table(*released)}


def _read(folder: Path) -> PairFiles:
    rows = {
        name: pd.read_parquet(path, columns=list(READ))
        for name in _ROWS
        if (path := folder / f"{name}.parquet").is_file()
    }
    lanes, directions = (read_table(folder / f"{name}.csv") for name in ("lanes", "directions"))
    losses = folder / "losses.parquet"
    return PairFiles(lanes, directions, rows, pd.read_parquet(losses) if losses.is_file() else None)


def pair_tables(
    files: PairFiles, *, pair: str, lang: Language | None, seed: int
) -> dict[str, Rows]:
    """Every table's rows of one pair.

    Without a language topics are not judged.
    """
    cells = cells_of(files.lanes)
    answers = {name: answers_of(rows, lang) for name, rows in files.rows.items()}
    heldout, cosines = answers["heldout"], self_cosines(files.directions)
    losses = {} if files.losses is None else losses_by_lane(files.losses)
    swept = [cell for cell in cells if cell.experiment == "sweep"]
    sweep = sweep_rows(swept, heldout, protocol="heldout", seed=seed)
    if "fitted" in answers:
        fitted = sweep_rows(swept, answers["fitted"], protocol="fitted", seed=seed)
        on_fitted, unseen = (answers[name]["harmful"] for name in ("fitted", "heldout"))
        add_inflation(fitted, swept, on_fitted, unseen, seed=seed)
        sweep += fitted
    patched, side_effects = [], side_effect_rows(cells, heldout["harmless"], losses, seed=seed)
    for experiment, (_, donor) in MODELS.items():
        if experiment in answers:
            receiver, plain = answers[experiment], answers[_PLAIN_OF[donor]]["harmful"]
            patched += substitution_rows(cells, experiment, receiver, plain, seed=seed)
            side_effects += side_effect_rows(cells, receiver["harmless"], losses, seed=seed)
    tables: dict[str, Rows] = {
        "ablation_sweep": sweep,
        "ablation_by_category": category_rows(cells, heldout["harmful"]),
        "direction_ablation": direction_rows(cells, heldout, cosines, seed=seed),
        "ordering": ordering_rows(cells, heldout, cosines, seed=seed),
        "substitution": patched,
        "old_or_new": old_or_new_rows(cells, heldout, seed=seed),
        "side_effects": side_effects,
    }
    return {name: [{"pair": pair, **row} for row in rows] for name, rows in tables.items()}


def published_table(sweep: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Both released files as rows with the columns `STUDY.table("ablation_published").names`.

    Returns:
        `kind` is `cumulative` (the leading k directions; k = 0 is the unedited model) or `single`.
    """
    names = {"refusal_rate": "refusal", "wilson95_low": "low", "wilson95_high": "high"}
    cumulative = sweep.rename(columns={**names, "random_refusal_rate": "random_refusal"})
    cumulative = cumulative.assign(
        matrix=cumulative["matrix"].map(_MATRICES),
        band=cumulative["band"].map(_BANDS),
        kind="cumulative",
        directions=None,
    )
    numbers = single["direction"].str.removeprefix("u_")
    alone = single.rename(columns=names).assign(
        matrix="template",
        band="narrow",
        kind="single",
        k=1,
        directions=numbers,
        random_refusal=None,
    )
    columns = list(STUDY.table("ablation_published").names)
    rows = [*cumulative[columns].to_dict("records"), *alone[columns].to_dict("records")]
    return pd.DataFrame(rows, columns=columns)
