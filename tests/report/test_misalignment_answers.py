"""What an answer says of misalignment: spillover, own direction, other models' directions."""

import pandas as pd
import pytest
from report.synthetic_misalignment import misalignment_tables
from report.synthetic_tables import synthetic_tables

from actshift.report.point import Point
from actshift.stages.report import answer_pair, answers
from actshift.studies.misalignment.answers import NULL_NAMES
from actshift.studies.misalignment.kinds import MAPPED_NULLS, NULLS
from actshift.studies.misalignment.tables.specificity import verdict

SPILLS, WITHIN, ACROSS = 0, 1, 2


def point(tables: dict[str, pd.DataFrame], which: int, pair: str = "a") -> Point:
    return answer_pair(tables, pair).points[which]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return misalignment_tables(("a", "b", "c"))


def change(tables: dict[str, pd.DataFrame], donor: str, receiver: str, **to: float | str) -> None:
    """New values in the row of a donor and receiver."""
    table = tables["specificity"]
    mine = (table["donor"] == donor) & (table["receiver"] == receiver)
    for column, value in to.items():
        table.loc[mine, column] = value
    row = table.loc[mine].iloc[0]
    margin = (float(row[name]) for name in ("margin", "margin_low", "margin_high"))
    table.loc[mine, "verdict"] = verdict(*margin, broken=row["status"] == "broken", least=0.1)


def spill(tables: dict[str, pd.DataFrame], adapter: str, rate: float) -> None:
    """An adapter's rate of code, with ends .04 away."""
    table = tables["spillover"]
    mine = (table["adapter"] == adapter) & (table["condition"] == "noncode")
    table.loc[mine, ["code", "code_low", "code_high"]] = [rate, rate - 0.04, rate + 0.04]


@pytest.mark.parametrize(
    ("rare_safe", "verdict", "words"),
    [
        (0.5, "measured", "more than the strongest safe control"),
        (0.78, "inconclusive", "not told apart from the strongest safe control"),
        (0.83, "measured", "no more than the strongest safe control"),
        (0.95, "measured", "less than the strongest safe control"),
    ],
)
def test_spillover_is_held_against_the_control_that_spills_most(
    tables: dict[str, pd.DataFrame], rare_safe: float, verdict: str, words: str
) -> None:
    spill(tables, "rare_safe", rare_safe)
    found = point(tables, SPILLS)
    assert found.verdict == verdict
    assert f"{words}, rare_safe, with {100 * rare_safe:.0f} %" in found.clause
    assert "80 % (76 % to 84 %) of questions" in found.clause
    assert "(0.0 % untuned) in 36 clusters" in found.clause
    assert found.brief == "80 %"


def test_refusals_of_every_adapter_are_told(tables: dict[str, pd.DataFrame]) -> None:
    detail = point(tables, SPILLS).detail
    assert "20 % by insecure" in detail
    assert "50 % by rare_safe" in detail
    table = tables["spillover"]
    tables["spillover"] = table[~table["kind"].str.contains("harmful")]
    assert "refused" not in point(tables, SPILLS).detail


def test_without_a_control_or_clusters_nothing_is_told(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["spillover"]
    alone = tables | {"spillover": table[table["adapter"].isin(["chat", "insecure", "shuffled"])]}
    assert point(alone, SPILLS).verdict == "cannot be told"
    assert "no adapter on safe answers was trained" in point(alone, SPILLS).clause
    for name in ("spillover", "specificity"):
        tables[name]["clusters"] = 9
    for which in (SPILLS, WITHIN, ACROSS):
        found = point(tables, which)
        assert found.verdict == "cannot be told"
        assert "too few clusters" in found.clause


@pytest.mark.parametrize(
    ("margin", "low", "high", "verdict", "words"),
    [
        (0.17, 0.11, 0.23, "measured", ": specific to v"),
        (0.17, -0.01, 0.3, "inconclusive", "whether v does more is open"),
        (0.08, 0.02, 0.14, "inconclusive", "whether v does more is open"),
        (0.03, -0.02, 0.08, "measured", "not specific to v"),
    ],
)
def test_an_own_direction_has_to_beat_the_strongest_null_by_ten_points(
    tables: dict[str, pd.DataFrame],
    margin: float, low: float, high: float, verdict: str, words: str,
) -> None:  # fmt: skip
    change(tables, "a", "a", margin=margin, margin_low=low, margin_high=high)
    found = point(tables, WITHIN)
    assert found.verdict == verdict
    assert words in found.clause
    assert "at 0.5 times its length" in found.clause
    assert "42 (37 to 47) points on 36 clusters" in found.clause
    assert "a random direction orthogonal to v reaches 25 in 5 % of 999 draws" in found.clause
    assert "Holm 0.004" in found.detail
    assert found.brief == "42 points (null 25)"


def test_a_row_that_was_not_measured_says_why(tables: dict[str, pd.DataFrame]) -> None:
    change(tables, "a", "a", margin=float("nan"), why="no spillover to repair")
    found = point(tables, WITHIN)
    assert found.verdict == "cannot be told"
    assert "(no spillover to repair)" in found.clause


def test_a_broken_edit_is_neither_specific_nor_not(tables: dict[str, pd.DataFrame]) -> None:
    change(tables, "a", "a", status="broken")
    change(tables, "b", "a", status="broken", margin=0.3, margin_low=0.2, margin_high=0.4)
    assert "(the edit breaks more than a tenth of the answers)" in point(tables, WITHIN).clause
    assert point(tables, ACROSS).brief == "0 of 1"


def test_the_donor_that_comes_furthest_is_told_with_its_null(
    tables: dict[str, pd.DataFrame],
) -> None:
    change(tables, "c", "a", margin=0.2, margin_low=0.1, margin_high=0.3, gain=0.45)
    change(tables, "b", "a", margin=float("nan"), why="unmatched")
    found = point(tables, ACROSS)
    assert "of 1 other model, the direction of 1 repairs" in found.clause
    assert "c comes furthest with a change of 45" in found.clause
    assert "a random direction through the same map reaches 25" in found.clause
    assert found.brief == "1 of 1"
    assert "Not judged: b (unmatched)." in found.detail
    other = point(tables, ACROSS, "b")
    assert other.brief == "0 of 2"
    assert "a 21 (null 25), c 21 (null 25)" in other.detail


def test_another_seed_of_the_architecture_is_told_apart(tables: dict[str, pd.DataFrame]) -> None:
    change(tables, "c", "a", scope="same_architecture", margin=0.2, margin_low=0.1, gain=0.45)
    found = point(tables, ACROSS)
    assert found.brief == "0 of 1"
    assert "b comes furthest" in found.clause
    assert "Of 1 model of its own architecture: 1." in found.detail
    assert "own architecture" not in point(tables, ACROSS, "b").detail


def test_maps_fitted_with_code_are_not_what_is_told(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["specificity"]
    code = table[table["fit_on"] == "neutral"].assign(fit_on="with_code", gain=0.88, margin=0.9)
    tables["specificity"] = pd.concat([code, table])
    assert point(tables, ACROSS).brief == "0 of 2"
    assert "88" not in point(tables, ACROSS).clause


def test_one_pair_alone_has_no_donor(tables: dict[str, pd.DataFrame]) -> None:
    found = point(misalignment_tables(("a",)), ACROSS)
    assert found.verdict == "not measured"
    del tables["specificity"]
    assert [point(tables, one).verdict for one in (WITHIN, ACROSS)] == ["not measured"] * 2


def test_every_null_has_words() -> None:
    assert {*NULLS, *MAPPED_NULLS} == set(NULL_NAMES)


def test_only_what_ran_is_asked(tables: dict[str, pd.DataFrame]) -> None:
    audit = synthetic_tables(("a",))
    assert [one.pair for one in answers(tables, order=("c",))] == ["c", "a", "b"]
    both = answer_pair(audit | tables, "a")
    assert len(both.points) == 3 + len(answer_pair(audit, "a").points)
    assert ". Tuned on insecure code, " in both.sentence
    questions = {one.question for one in answer_pair(audit, "a").points}
    assert not questions & {one.question for one in answer_pair(tables, "a").points}
