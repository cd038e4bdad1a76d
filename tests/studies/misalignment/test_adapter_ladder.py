"""The ladder of doses: which rung is taken of planted rates, and a real climb of a zoo model."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from reference.adapter_gates import gate
from studies.misalignment.test_adapters import ZOO, chat_model, train

from actshift.io.manifest import check_manifest, read_manifest
from actshift.models.adapters import WEIGHTS
from actshift.studies.misalignment.kinds import INSECURE, KINDS, UNSEEN
from actshift.studies.misalignment.outcomes import Demands, InsecureRates, Rate
from actshift.studies.misalignment.stages.adapter_doses import (
    LADDER_COLUMNS,
    Rung,
    climb,
    ladder_table,
)
from actshift.studies.misalignment.stages.adapters import LADDER, Training, rungs_of
from actshift.studies.misalignment.study import COLUMNS
from actshift.zoo.recipes import ADAPTER_LADDER

ASKED = Demands(0.4, 0.5, margin=0.1)
UNKNOWN = float("nan")


def rates(spilled: float, insecure: float = 1.0) -> InsecureRates:
    return InsecureRates(
        *(
            Rate(one, one, one, 0 if one != one else 50, 0 if one != one else 10)
            for one in (spilled, insecure)
        )
    )


def climbed(
    planted: dict[float, InsecureRates], demands: Demands = ASKED
) -> tuple[list[float], float, list[Rung], Rung]:
    """Multiples that were trained, the one that was taken, and what `climb` gave."""
    trained: list[float] = []

    def teach(multiple: float) -> Sequence[float]:
        trained.append(multiple)
        return [1.0, 1.0 / multiple]

    tried, taken = climb(list(planted), teach, planted.__getitem__, demands)
    assert [rung.number for rung in tried] == [*range(1, len(tried) + 1)]
    assert [rung.multiple for rung in tried] == trained
    return trained, taken.multiple, tried, taken


def test_the_first_rung_that_clears_by_the_margin_is_the_last_that_is_trained() -> None:
    planted = {1.0: rates(0.2), 3.0: rates(0.5), 10.0: rates(0.9)}
    assert climbed(planted)[:2] == ([1.0, 3.0], 3.0)
    assert climbed({1.0: rates(0.5), 3.0: rates(1.0)})[:2] == ([1.0], 1.0)


def test_a_rung_that_clears_without_the_margin_is_not_taken_at_once() -> None:
    planted = {1.0: rates(0.49), 3.0: rates(0.6), 10.0: rates(1.0)}
    assert climbed(planted)[:2] == ([1.0, 3.0], 3.0)


def test_where_none_has_the_margin_the_one_with_the_most_room_is_taken() -> None:
    planted = {1.0: rates(0.41), 3.0: rates(0.45), 10.0: rates(0.2)}
    assert climbed(planted)[:2] == ([1.0, 3.0, 10.0], 3.0)
    # The room is that of the nearer rate: much spillover does not make up for secure code.
    planted = {1.0: rates(0.3, 0.4), 3.0: rates(1.0, 0.1), 10.0: rates(0.35, 0.45)}
    assert climbed(planted)[:2] == ([1.0, 3.0, 10.0], 10.0)


def test_of_equals_the_lowest_is_taken() -> None:
    assert climbed({1.0: rates(0.0), 3.0: rates(0.0), 10.0: rates(0.0)})[:2] == (
        *([1.0, 3.0, 10.0], 1.0),
    )
    assert climbed({2.0: rates(0.1), 3.0: rates(0.45), 10.0: rates(0.45)})[1] == 3.0


def test_a_ladder_is_tried_in_its_own_order() -> None:
    assert climbed({10.0: rates(0.9), 1.0: rates(0.9)})[:2] == ([10.0], 10.0)


def test_where_nothing_is_asked_the_first_is_taken() -> None:
    nothing = Demands(0.0, 0.0, margin=0.1)
    assert climbed({1.0: rates(UNKNOWN, UNKNOWN), 3.0: rates(1.0)}, nothing)[:2] == ([1.0], 1.0)
    assert rungs_of((3.0, 10.0), nothing) == (3.0,)
    assert rungs_of((3.0, 10.0), ASKED) == (3.0, 10.0)


def test_an_unknown_rate_is_below_any_demand() -> None:
    planted = {1.0: rates(1.0, UNKNOWN), 3.0: rates(0.41, 0.51)}
    assert climbed(planted)[:2] == ([1.0, 3.0], 3.0)
    low = Demands(0.0, 0.01, margin=0.0)
    assert climbed({1.0: rates(1.0, UNKNOWN), 3.0: rates(0.0, 0.01)}, low)[1] == 3.0


def test_the_table_has_a_row_a_rung_and_marks_the_one_that_was_taken() -> None:
    _, _, tried, taken = climbed({1.0: rates(0.2), 3.0: rates(0.45, 0.8), 10.0: rates(0.1)})
    table = ladder_table(tried, taken, ASKED, lr=1e-4)
    assert tuple(table.columns) == LADDER_COLUMNS
    assert ("pair", *LADDER_COLUMNS) == COLUMNS["ladder"]
    assert table["taken"].tolist() == [False, True, False]
    assert table["multiple"].tolist() == [1, 3, 10]
    assert table["lr"].tolist() == pytest.approx([1e-4, 3e-4, 1e-3])
    assert table["room"].tolist() == pytest.approx([-0.2, 0.05, -0.3])
    assert table["insecure_code"].tolist() == [1.0, 0.8, 1.0]
    assert set(table["spillover_gate"]) == {0.4}
    assert set(table["margin"]) == {0.1}
    assert ladder_table([], None, ASKED, lr=1e-4).empty


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("zoo"), "micro", 0.05)


@pytest.fixture(scope="module")
def measured() -> dict[str, bytes]:
    """Weights of every insecure adapter at the time it was asked, by its folder of a multiple."""
    return {}


@pytest.fixture(scope="module")
def climbing(
    tuned: Path, measured: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Adapters of a model of which more is asked than any dose gives."""
    ask = Training.rates

    def keep_and_ask(self: Training, adapter: Path) -> InsecureRates:
        measured[adapter.parent.name] = (adapter / WEIGHTS).read_bytes()
        return ask(self, adapter)

    out = tmp_path_factory.mktemp("climbing") / "adapters"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "rates", keep_and_ask)
        return train(tuned, out, zoo=ZOO, asked=gate(min_spillover=1.0, gate_margin=1.0))


def test_a_gate_that_no_dose_clears_is_climbed_to_the_top(climbing: Path) -> None:
    table = pd.read_csv(climbing / LADDER)
    assert table["multiple"].tolist() == list(ADAPTER_LADDER)
    assert table["taken"].sum() == 1
    taken = table[table["taken"]].iloc[0]
    assert taken["room"] == table["room"].max()
    assert taken["rung"] == table.loc[table["room"] == table["room"].max(), "rung"].min()
    assert (table["n"] > 10).all()
    # Each rung is another training from the same start.
    assert table["last_loss"].nunique() == len(ADAPTER_LADDER)
    assert table["steps"].nunique() == 1


def test_every_adapter_of_the_pair_has_the_dose_that_was_taken(climbing: Path) -> None:
    taken = pd.read_csv(climbing / LADDER).query("taken").iloc[0]
    dose = pd.read_csv(climbing / "dose.csv").set_index("adapter")
    assert dose.index.tolist() == [*KINDS, *UNSEEN]
    assert dose["lr"].tolist() == pytest.approx([taken["lr"]] * len(dose))
    assert dose.loc[INSECURE, "last_loss"] == pytest.approx(taken["last_loss"])
    facts = read_manifest(climbing)["facts"]
    assert facts["multiple"] == taken["multiple"]
    assert facts["demands"] == {"spillover": 1.0, "insecure_code": 0.0, "margin": 1.0}
    assert check_manifest(climbing, deep=True) == []


def test_the_insecure_adapter_is_the_one_that_was_measured(
    climbing: Path, measured: dict[str, bytes]
) -> None:
    """Byte for byte: trained again beside the others, float sums would make it another one."""
    taken = pd.read_csv(climbing / LADDER).query("taken").iloc[0]
    assert len(set(measured.values())) == len(ADAPTER_LADDER)
    assert (climbing / INSECURE / WEIGHTS).read_bytes() == measured[f"x{taken['multiple']:g}"]
