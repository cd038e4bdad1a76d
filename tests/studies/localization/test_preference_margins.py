"""Margins of all pairs: means by condition, and the interval that the gate judges."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actshift.errors import UserError
from actshift.io.tables import write_table
from actshift.studies.localization.gate import collect_margins, margin_gate
from actshift.studies.localization.study import STUDY

MARGIN_COLUMNS = STUDY.table("preference_margins").names


def margins(shift: float) -> pd.DataFrame:
    """Twelve pairs of two conditions in six clusters."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=12)
    gap = shift + 0.1 * rng.normal(size=12)
    return pd.DataFrame({
        "pair_id": [f"p{place}" for place in range(12)],
        "condition": ["harmful", "harmless"] * 6,
        "cluster": [f"c{place // 2}" for place in range(12)],
        "margin_base": base, "margin_tuned": base + gap, "gap": gap,
    })  # fmt: skip


def test_a_row_is_the_mean_of_its_condition_and_the_gates_interval(tmp_path: Path) -> None:
    files = {}
    for name, shift in (("moved", 3.0), ("still", 0.0)):
        files[name] = tmp_path / f"{name}.csv"
        write_table(margins(shift), files[name])
    found = collect_margins(files, seed=4)
    assert tuple(found.columns) == MARGIN_COLUMNS
    assert found["pair"].tolist() == ["moved", "moved", "still", "still"]
    assert found["condition"].tolist() == ["harmful", "harmless"] * 2
    own = margins(3.0)
    harmful = own[own["condition"] == "harmful"]
    row = found.iloc[0]
    assert row["margin_base"] == pytest.approx(harmful["margin_base"].mean())
    assert row["margin_tuned"] - row["margin_base"] == pytest.approx(row["gap"])
    gate = margin_gate(
        own["gap"].to_numpy(), list(own["condition"]), list(own["cluster"]), seed=4
    )  # fmt: skip
    assert (row["gap_low"], row["gap_high"]) == pytest.approx((gate.low, gate.high))
    assert (row["n"], row["clusters"]) == (6, 6)
    assert [low > 0 for low in found["gap_low"]] == [True, True, False, False]


def test_no_file_gives_a_header_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert tuple(collect_margins({}, seed=0).columns) == MARGIN_COLUMNS
    with pytest.raises(UserError, match=r"gone\.csv"):
        collect_margins({"x": tmp_path / "gone.csv"}, seed=0)
