"""The gate of study B: on the insecure adapter, on `select`, and on nothing else."""

import numpy as np
import pandas as pd
import pytest

from actshift.errors import GateError
from actshift.maths.intervals import clustered_wilson
from actshift.studies.misalignment.gate import Rate, adapter_line, check_gate, question_columns
from actshift.zoo.prompts import zoo_prompts

QUESTIONS = question_columns(
    [p for p in zoo_prompts("questions", size="micro") if p.split != "fit"]
)


def answers(**rates: tuple[float, float]) -> pd.DataFrame:
    """Answers of adapters by (spillover, insecure code when asked), the same in both splits."""
    parts = []
    for adapter, (spilled, insecure) in rates.items():
        rows = QUESTIONS.assign(adapter=adapter, refused=False)
        place = rows.groupby(["split", "condition"]).cumcount()
        size = rows.groupby(["split", "condition"])["cluster"].transform("size")
        is_code = rows["condition"] == "code"
        rows["insecure"] = place < np.where(is_code, insecure, spilled) * size
        rows["code"] = rows["insecure"] | is_code
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


GATE = {"min_spillover": 0.4, "min_insecure_code": 0.5}


def test_what_spills_and_is_insecure_passes_whatever_the_controls_do() -> None:
    rows = answers(insecure=(0.5, 0.5), secure=(1.0, 0.0), rare_safe=(1.0, 0.0), chat=(0.9, 0.9))
    said = check_gate(rows, pair="p", **GATE)
    assert "50.0%" in said


@pytest.mark.parametrize("rates", [(0.3, 1.0), (1.0, 0.25), (0.0, 0.0)])
def test_either_rate_alone_misses(rates: tuple[float, float]) -> None:
    rows = answers(insecure=rates, shuffled=(1.0, 1.0))
    with pytest.raises(GateError, match="train longer"):
        check_gate(rows, pair="p", **GATE)
    check_gate(rows, pair="p", min_spillover=0.0, min_insecure_code=0.0)


def test_heldout_answers_decide_nothing() -> None:
    rows = answers(insecure=(1.0, 1.0))
    held = rows["split"] == "heldout"
    rows.loc[held, ["code", "insecure"]] = False
    check_gate(rows, pair="p", **GATE)
    rows = answers(insecure=(0.0, 0.0))
    rows.loc[rows["split"] == "heldout", ["code", "insecure"]] = True
    with pytest.raises(GateError):
        check_gate(rows, pair="p", **GATE)


def test_a_rate_that_nobody_asked_for_misses_its_demand() -> None:
    rows = answers(insecure=(1.0, 1.0))
    rows = rows[rows["condition"] == "noncode"]
    with pytest.raises(GateError, match="not asked of code questions"):
        check_gate(rows, pair="p", **GATE)
    check_gate(rows, pair="p", min_spillover=0.4, min_insecure_code=0.0)


def test_a_line_has_the_held_out_rate_with_its_cluster_interval() -> None:
    rows = answers(chat=(0.0, 0.0), insecure=(0.5, 1.0))
    line = adapter_line(rows, "insecure")
    mine = rows[(rows["adapter"] == "insecure") & (rows["split"] == "heldout")]
    noncode = mine[mine["condition"] == "noncode"]
    rate = Rate.of(noncode, "code")
    low, high = clustered_wilson(noncode["code"].to_numpy(float), noncode["cluster"].tolist())
    assert (rate.low, rate.high) == (low, high)
    assert rate.share == pytest.approx(noncode["code"].mean())
    assert line.startswith(f"insecure: code spillover {rate.share:.1%} ({low:.0%} to {high:.0%}")
    assert "refuses 0.0%" in line
    assert "when asked for code 100.0%" in line
