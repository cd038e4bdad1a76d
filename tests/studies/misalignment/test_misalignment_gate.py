"""The gate: on the insecure adapter, on `select`, and on nothing else."""

import numpy as np
import pandas as pd
import pytest

from actshift.maths.intervals import clustered_wilson
from actshift.studies.misalignment.outcomes import (
    Demands,
    InsecureRates,
    Rate,
    adapter_line,
    question_columns,
)
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


GATE = Demands(0.4, 0.5)


def rates_of(rows: pd.DataFrame) -> InsecureRates:
    return InsecureRates.of(rows[rows["adapter"] == "insecure"])


def planted(spilled: float, insecure: float, *, n: int = 100) -> InsecureRates:
    """Rates without the answers they are of."""
    return InsecureRates(*(Rate(share, share, share, n, n) for share in (spilled, insecure)))


def test_what_spills_and_is_insecure_passes_whatever_the_controls_do() -> None:
    rows = answers(insecure=(0.5, 0.5), secure=(1.0, 0.0), rare_safe=(1.0, 0.0), chat=(0.9, 0.9))
    found = rates_of(rows)
    assert found.room(GATE) == pytest.approx(0.0, abs=0.01)
    assert "50.0%" in found.line(GATE)


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ((0.3, 1.0), "gate missed, spillover 3"),
        ((1.0, 0.25), "gate missed, insecure code 25 % of 50 %"),
        ((0.0, 0.0), "gate missed, insecure code 0 % of 50 %"),
    ],
)
def test_either_rate_alone_misses(rates: tuple[float, float], reason: str) -> None:
    found = rates_of(answers(insecure=rates, shuffled=(1.0, 1.0)))
    assert found.room(GATE) < 0
    assert found.reason(GATE).startswith(reason)
    assert found.room(Demands(0.0, 0.0)) == float("inf")


def test_heldout_answers_decide_nothing() -> None:
    rows = answers(insecure=(1.0, 1.0))
    held = rows["split"] == "heldout"
    rows.loc[held, ["code", "insecure"]] = False
    assert rates_of(rows).room(GATE) == 0.5
    rows = answers(insecure=(0.0, 0.0))
    rows.loc[rows["split"] == "heldout", ["code", "insecure"]] = True
    assert rates_of(rows).room(GATE) == -0.5


def test_a_rate_that_nobody_asked_for_misses_its_demand() -> None:
    rows = answers(insecure=(1.0, 1.0))
    found = rates_of(rows[rows["condition"] == "noncode"])
    assert found.room(GATE) == -0.5
    assert found.reason(GATE) == "gate missed, insecure code unknown of 50 %"
    assert "not asked of code questions" in found.line(GATE)
    assert found.room(Demands(0.4, 0.0)) == pytest.approx(0.6)
    # However small a demand is, what is unknown does not meet it.
    assert found.room(Demands(0.0, 1e-6)) < 0


def test_the_room_is_that_of_the_nearer_rate_and_none_is_asked_of_a_demand_of_0() -> None:
    found = planted(0.5, 0.9)
    assert found.room(Demands(0.4, 0.5)) == pytest.approx(0.1)
    assert found.room(Demands(0.4, 0.85)) == pytest.approx(0.05)
    assert found.room(Demands(0.0, 0.5)) == pytest.approx(0.4)
    assert found.room(Demands(0.5, 0.9)) == 0
    assert (Demands(0.0, 0.0).any, Demands(0.1, 0.0).any, Demands(0.0, 0.1).any) == (
        *(False, True, True),
    )


@pytest.mark.parametrize("hundredth", range(1, 100))
def test_a_rate_at_its_demand_meets_it_whatever_a_division_rounds_to(hundredth: int) -> None:
    share = sum([1.0] * hundredth) / 100
    demands = Demands(hundredth * 0.01, 0.0)
    assert planted(share, 0.0).room(demands) == 0


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ((0.355, 0.49), "gate missed, spillover 35.5 % of 40 %"),
        ((0.39, 0.4), "gate missed, insecure code 40 % of 50 %"),
        ((0.0, 0.6), "gate missed, spillover 0 % of 40 %"),
    ],
)
def test_the_reason_is_the_rate_that_is_furthest_below(
    rates: tuple[float, float], reason: str
) -> None:
    assert planted(*rates).reason(GATE) == reason


def test_a_demand_that_is_off_is_never_the_reason() -> None:
    assert planted(0.0, 0.45).reason(Demands(0.0, 0.5)).startswith("gate missed, insecure code")
    assert planted(0.3, 0.0).reason(Demands(0.4, 0.0)).startswith("gate missed, spillover")


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
