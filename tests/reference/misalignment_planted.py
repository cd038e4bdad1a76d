"""Two models with planted effects, each other's donors, and tables of their folders."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from reference.misalignment_files import Made, questions, write_questions

from actshift.engine.joining import JoinContext
from actshift.io.tables import read_table
from actshift.stages.tables import make_tables
from actshift.studies.misalignment.study import STUDY

_PUBLISHED = Path(__file__).parents[2] / "resources" / "published"
STAGES = ("adapters", "spillover", "steering", "transfer")
SPILLS, REPAIRED, UNMOVED = (0.9, 0.05, 0.0), (0.05, 0.9, 0.0), (0.85, 0.1, 0.0)


def specific(facts: Mapping[str, object]) -> tuple[float, float, float]:
    """Only v, and the mapped v, repair; and v repairs the insecure adapter alone."""
    if facts["receiver"] in ("chat", "secure", "benign"):
        return (0.0, 1.0, 0.0)
    if facts["control"] == "plain":
        return SPILLS
    own = facts["control"] in ("direction", "mapped") and facts["receiver"] == "insecure"
    return REPAIRED if own else UNMOVED


def general(facts: Mapping[str, object]) -> tuple[float, float, float]:
    """v repairs; so does every null, on every adapter; mapped directions break answers."""
    if facts["control"] == "mapped":
        return (0.0, 0.5, 0.5)
    return SPILLS if facts["control"] == "plain" else (0.2, 0.7, 0.0)


#: Of `llama` v is specific, of `gemma` it is not; the doses of the latter differ.
MADE = {
    "llama": Made(specific, donors=("gemma",), shifts={"insecure": (8.0, 0.0), "secure": (0, 0.1)}),
    "gemma": Made(general, donors=("llama",), losses={"rare_safe": 0.5}),
}


def make(root: Path, out: Path, *, without: tuple[str, ...] = ()) -> None:
    """Tables of the pairs below `root`; `without` names folders left out (`gemma/steering`)."""
    folders = {
        stage: {
            pair: root / ("gone" if f"{pair}/{stage}" in without else "") / pair / stage
            for pair in MADE
        }
        for stage in STAGES
    }
    make_joint(root, out, folders)


def make_joint(root: Path, out: Path, folders: Mapping[str, Mapping[str, Path]]) -> None:
    """Tables of some folders, with the questions and maps below `root`."""
    files = {"maps": root / "ridge_maps", "questions": root / "questions.jsonl"}
    make_tables(
        STUDY.join,
        JoinContext(folders, _PUBLISHED, files),
        tables={table.stem: table.names for table in STUDY.joined},
        out=out / "tables" / "misalignment",
    )


def write_all(root: Path) -> None:
    """Folders of both models below `root`, and their tables."""
    write_questions(root / "questions.jsonl", questions())
    for seed, (pair, one) in enumerate(MADE.items()):
        one.write(root, pair, seed=seed)
    make(root, root)


def table(root: Path, name: str, **cell: object) -> pd.DataFrame:
    found = read_table(root / "tables" / "misalignment" / f"{name}.csv")
    for column, value in cell.items():
        found = found.loc[found[column] == value]
    return found
