"""What the tests of the localization tables share: a planted truth, tables and cells of it."""

import pandas as pd

from actshift.studies.localization.join import patch_tables
from actshift.studies.localization.lanes import LaneFacts
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.effects import Sample
from actshift.studies.localization.tables.inputs import PairFiles, cells_of

#: What layer 0, 1 ... of a plain patch carries: all of it comes with block 1.
STEP = (0.0, 1.0, 1.0, 1.0)
HARMFUL = {"condition": "harmful", "length": "natural", "direction": "forward"}


def tables(files: PairFiles) -> dict[str, pd.DataFrame]:
    found = patch_tables(files, pair="p", seed=0)
    return {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in found.items()}


def rows_of(table: pd.DataFrame, **facts: object) -> pd.DataFrame:
    for column, value in facts.items():
        table = table[table[column].isna() if value is None else table[column] == value]
    return table


def cell(table: pd.DataFrame, **facts: object) -> pd.Series:
    found = rows_of(table, **facts)
    assert len(found) == 1, f"{len(found)} rows of {facts}"
    return found.iloc[0]


def planted(direction: str, facts: LaneFacts, _pair: int) -> float:
    """Forward everything from block 1 on; backward a half; each control its own share."""
    by_experiment = {
        "patch": STEP[facts.layer] * (1.0 if direction == "forward" else 0.5),
        "interpolation": STEP[facts.layer] * facts.alpha**2,
        "noise": 0.1 * (1 + (facts.draw or 0)),
        "random": 0.05 * (facts.draw or 0),
        "shuffled": 0.9 * STEP[facts.layer],
        "other_condition": 0.2,
        "source": {"chosen": 0.8, "rejected": -0.3, "contrast": 0.4}.get(str(facts.source), 0.0),
        "low_rank": {"shift": 0.9, "states": 0.6, "base_states": 0.25, "random": 0.1}.get(
            str(facts.basis), 0.0
        ),
    }
    return by_experiment.get(facts.experiment, 0.0)


def sample(files: PairFiles, condition: str = "harmful", length: str = "natural") -> Sample:
    (found,) = (
        one for one in cells_of(files) if (one.condition, one.length) == (condition, length)
    )
    return Sample.of(found, pair="p", seed=0)
