"""Misalignment tables of all pairs: answers, lanes and maps of study B -> its tables."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from actshift.errors import UserError
from actshift.io.missed import first_missed
from actshift.io.tables import read_table, write_table
from actshift.studies.misalignment.stages.files import question_rows, read_pair
from actshift.studies.misalignment.tables.columns import COLUMNS, PUBLISHED_TABLE
from actshift.studies.misalignment.tables.inputs import Rows
from actshift.studies.misalignment.tables.pair import over_pairs, pair_tables
from actshift.studies.misalignment.tables.published import published_table
from actshift.studies.misalignment.tables.specificity import Judged


def misalignment_tables(
    *,
    folders: Mapping[str, Mapping[str, Path]],
    maps: Path,
    questions: Path,
    published: Path,
    seed: int,
    out: Path,
) -> list[str]:
    """Write the pairs' joint tables.

    Args:
        folders: Stage -> folder of each pair, in the order wanted; where a job failed there is
            no folder, where a gate was missed a marker, and the tables that need it lack the pair.
        maps: Folder of the ridge maps.
        questions: Prompt set that was asked.
        published: CSV of published headline numbers.
        seed: Of resampling.
        out: Folder of the tables.

    Returns:
        What is missing, such as `llama: steering`.

    Raises:
        UserError: No pair has a folder or missed a gate, or a file does not fit the others.
        StoreError: Stored states are damaged or lack a question.
    """
    pairs = list(dict.fromkeys(pair for of_stage in folders.values() for pair in of_stage))
    asked = question_rows(questions)
    joint: dict[str, Rows] = {}
    edits: list[Judged] = []
    missing: list[str] = []
    for pair in pairs:
        own = {stage: of_stage[pair] for stage, of_stage in folders.items() if pair in of_stage}
        files = read_pair(pair, own, asked)
        missing += [f"{pair}: {stage}" for stage in files.missing]
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
            f"misalignment_tables: none of the pairs {', '.join(pairs) or '(none)'} has a "
            f"folder of {', '.join(folders)}; see the logs of these rules"
        )
    fitted = _map_rows(maps)
    done = over_pairs(joint, edits, pairs=pairs, kin=_kin(fitted), seed=seed)
    for name, wanted in COLUMNS.items():
        rows = fitted if name == "ridge_maps" else pd.DataFrame(done[name])
        write_table(rows.reindex(columns=list(wanted)), out / f"{name}.csv")
    write_table(published_table(pd.read_csv(published)), out / f"{PUBLISHED_TABLE}.csv")
    return missing


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
