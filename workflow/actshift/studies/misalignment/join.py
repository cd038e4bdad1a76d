"""Misalignment tables of all pairs: answers, lanes and maps -> tables."""

from pathlib import Path

import pandas as pd

from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.missed import first_missed
from actshift.io.tables import read_table
from actshift.studies.misalignment.stages.files import question_rows, read_pair
from actshift.studies.misalignment.study import COLUMNS, STUDY
from actshift.studies.misalignment.tables.inputs import Rows
from actshift.studies.misalignment.tables.pair import over_pairs, pair_tables
from actshift.studies.misalignment.tables.specificity import Judged

PUBLISHED_TABLE = "misalignment_published"


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs; where a stage of a pair is missing, what needs it lacks it.

    Raises:
        UserError: No pair has a folder or missed a gate, or a file does not fit the others.
        StoreError: Stored states are damaged or lack a question.
    """
    folders, seed = context.folders, context.seed
    pairs = list(dict.fromkeys(pair for of_stage in folders.values() for pair in of_stage))
    asked = question_rows(context.files["questions"])
    joint: dict[str, Rows] = {}
    edits: list[Judged] = []
    for pair in pairs:
        own = {stage: of_stage[pair] for stage, of_stage in folders.items() if pair in of_stage}
        files = read_pair(pair, own, asked)
        tables, found = pair_tables(files, seed=seed)
        edits += found
        for name, rows in tables.items():
            joint[name] = joint.get(name, []) + rows
        told = ", ".join(f"{len(rows)} rows of {name}" for name, rows in tables.items() if rows)
        print(f"misalignment {pair}: {told or 'no rows'}")
        if files.missing:
            why = files.missed or "its job failed"
            print(f"misalignment {pair}: without {', '.join(files.missing)}: {why}")
    marked = first_missed(one for of_stage in folders.values() for one in of_stage.values())
    if not any(joint.values()) and marked is None:
        raise UserError(
            f"misalignment_tables: none of {', '.join(pairs) or '(no pairs)'} has a "
            f"folder of {', '.join(folders)}; see the logs of these rules"
        )
    fitted = _map_rows(context.files["maps"])
    done = over_pairs(joint, edits, pairs=pairs, kin=_kin(fitted), seed=seed)
    tables = {
        name: (fitted if name == "ridge_maps" else pd.DataFrame(done[name])).reindex(columns=of)
        for name, of in COLUMNS.items()
    }
    (published,) = (pd.read_csv(context.published / file) for file in STUDY.published)
    return {**tables, PUBLISHED_TABLE: published_table(published)}


def _map_rows(maps: Path) -> pd.DataFrame:
    """Rows of the maps; none where the job failed."""
    path = maps / "maps.csv"
    return read_table(path) if path.is_file() else pd.DataFrame()


def _kin(maps: pd.DataFrame) -> set[tuple[str, str]]:
    """Donors and receivers of one architecture."""
    if maps.empty:
        return set()
    same = maps[maps["same_architecture"]]
    return set(zip(same["donor"].astype(str), same["receiver"].astype(str), strict=True))


PAPER = "misalignment_directions"


def published_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The paper's rows with the columns `STUDY.table("misalignment_published").names`.

    Args:
        headline: `resources/published/headline.csv`.

    Returns:
        Separation, drops within a model and across models, donors and receivers.
    """
    own = headline.loc[
        headline["paper"] == PAPER, list(STUDY.table("misalignment_published").names)
    ]
    return own.reset_index(drop=True)
