"""Ablation tables of all pairs: rows and lanes -> seven tables, and the published one."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.studies.ablation.study import COLUMNS, STUDY
from actshift.studies.ablation.tables.answers import READ
from actshift.studies.ablation.tables.pair import PairFiles, pair_tables
from actshift.zoo.language import language

#: Row files of a pair; `fitted` stands there only with the published protocol.
PUBLISHED_TABLE = "ablation_published"
#: Matrix names of the release. Its Llama and Gemma sweeps hand naive shifts to the ablation, where
#: the paper's text says template.
_MATRICES = {"as_released": "naive", "M_template": "template", "M_DiD": "did"}
#: The sweep's names; the single directions were run in the narrow band only.
_BANDS = {"narrow_45_70": "narrow", "wide_30_85": "wide"}
_ROWS = ("heldout", "fitted", "substitution", "mode_toggle")


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Judge the rows of all pairs; answers of pairs outside the zoo are not judged by topic.

    Raises:
        UserError: No pair has its folder.
    """

    def rows_of(pair: str, folder: Path) -> Mapping[str, list[dict[str, object]]]:
        size = context.zoo_sizes.get(pair)
        lang = None if size is None else language(size)
        return pair_tables(_read(folder), pair=pair, lang=lang, seed=context.seed)

    tables = join_rows(context.folders["ablation"], rows_of, COLUMNS, rule="ablation")
    released = [pd.read_csv(context.published / name) for name in STUDY.published]
    return {**tables, PUBLISHED_TABLE: published_table(*released)}


def _read(folder: Path) -> PairFiles:
    paths = {name: folder / f"{name}.parquet" for name in _ROWS}
    losses = folder / "losses.parquet"
    return PairFiles(
        lanes=read_table(folder / "lanes.csv"),
        directions=read_table(folder / "directions.csv"),
        rows={
            name: pd.read_parquet(path, columns=list(READ))
            for name, path in paths.items()
            if path.is_file()
        },
        losses=pd.read_parquet(losses) if losses.is_file() else None,
    )


def published_table(sweep: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """Both released files as rows with the columns `STUDY.table("ablation_published").names`.

    Args:
        sweep: `resources/published/ablation_sweep.csv`.
        single: `resources/published/per_direction_ablation.csv`.

    Returns:
        `kind` is `cumulative` (the leading k directions; k = 0 is the unedited model) or `single`.
    """
    ends = {"refusal_rate": "refusal", "wilson95_low": "low", "wilson95_high": "high"}
    cumulative = sweep.rename(columns={**ends, "random_refusal_rate": "random_refusal"})
    cumulative = cumulative.assign(
        matrix=cumulative["matrix"].map(_MATRICES),
        band=cumulative["band"].map(_BANDS),
        kind="cumulative",
        directions=None,
    )
    numbers = single["direction"].str.removeprefix("u_")
    alone = single.rename(columns=ends).assign(
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
