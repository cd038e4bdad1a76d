"""What an answer says of localization: spread of weights, last prompt token, no preference."""

import pandas as pd
import pytest
from report.synthetic_localization import localization_tables
from report.synthetic_tables import synthetic_tables

from actshift.report.point import Point
from actshift.stages.report import answer_pair, answers

SPREAD, TOKEN = 0, 1


def point(tables: dict[str, pd.DataFrame], which: int, pair: str = "a") -> Point:
    return answer_pair(tables, pair).points[which]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return localization_tables(("a", "b"))


def set_effective(tables: dict[str, pd.DataFrame], insert: float, remove: float) -> None:
    """Effective units over layers, with ends .05 away."""
    table = tables["localization_summary"]
    for operation, value in {"insert": insert, "remove": remove}.items():
        mine = (table["statistic"] == "n_eff_over_layers") & (table["operation"] == operation)
        ends = [value, value - 0.05, value + 0.05]
        table.loc[mine, ["value", "value_low", "value_high"]] = ends


@pytest.mark.parametrize(
    ("insert", "remove", "verdict", "words"),
    [
        (0.15, 0.1, "measured", ": few, under a quarter"),
        (0.15, 0.9, "measured", "not few"),
        (0.9, 0.15, "measured", "not few"),
        (0.24, 0.1, "inconclusive", "is open"),
    ],
)
def test_few_units_must_do_both_ways(
    tables: dict[str, pd.DataFrame], insert: float, remove: float, verdict: str, words: str
) -> None:
    set_effective(tables, insert, remove)
    found = point(tables, SPREAD)
    assert found.verdict == verdict
    assert words in found.clause


def test_the_spread_is_told_in_units_with_interval_clusters_and_the_even_spread(
    tables: dict[str, pd.DataFrame],
) -> None:
    set_effective(tables, 1.0, 0.5)
    found = point(tables, SPREAD)
    assert "of 6 units effectively 4 (3.8 to 4.2) carry the preference into" in found.clause
    assert "2 (1.8 to 2.2) take it from the tuned model" in found.clause
    assert "counted on harmful pairs in 36 clusters" in found.clause
    assert "an even spread would be 6" in found.clause
    assert "block 3, 0.25 (0.22 to 0.28) of the gap" in found.detail
    assert found.brief == "4 and 2 of 6"


@pytest.mark.parametrize("which", [SPREAD, TOKEN])
def test_without_a_gap_or_with_few_clusters_nothing_is_told(
    tables: dict[str, pd.DataFrame], which: int
) -> None:
    for name in ("localization_summary", "positions"):
        tables[name]["clusters"] = 9
    assert "too few clusters" in point(tables, which).clause
    for name in ("localization_summary", "positions"):
        tables[name][["status", "why"]] = "no gap", "the gap's interval holds 0"
    found = point(tables, which)
    assert found.verdict == "cannot be told"
    assert "the gap's interval holds 0" in found.clause


def set_token(tables: dict[str, pd.DataFrame], **changes: float) -> None:
    table = tables["positions"]
    mine = (table["positions"] == "last_prompt") & (table["condition"] == "harmful")
    for column, value in changes.items():
        table.loc[mine, column] = value


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"edge_over_peak_high": 0.4}, "measured", "falls to less than half"),
        ({"edge_over_peak_low": 0.6, "edge_over_peak_high": 0.9}, "measured", "does not fall"),
        ({"edge_over_peak_low": 0.4, "edge_over_peak_high": 0.9}, "inconclusive", "is open"),
        ({"peak_layer": 3}, "measured", "largest at the very end"),
        ({"peak_low": -1.0}, "cannot be told", "that token alone moves nothing"),
        ({"peak": 10.0}, "cannot be told", "no more than a control does"),
    ],
)
def test_the_curve_of_the_last_prompt_token_is_put_into_words(
    tables: dict[str, pd.DataFrame], changes: dict[str, float], verdict: str, words: str
) -> None:
    set_token(tables, **changes)
    found = point(tables, TOKEN)
    assert found.verdict == verdict
    assert words in found.clause


def test_the_peak_stands_beside_its_donors_and_the_strongest_control(
    tables: dict[str, pd.DataFrame],
) -> None:
    found = point(tables, TOKEN)
    controls = tables["controls"].query(
        "pair == 'a' and condition == 'harmful' and positions == 'last_prompt' and layer == 1"
    )
    effects = controls.set_index("control")["effect"]
    assert "layer 1 of 0-3, 54 of 90 nats on 36 clusters" in found.clause
    for name, words in {
        "shuffled": "a donor on another pair of the condition",
        "other_condition": "a donor on the other condition",
        "noise": "noise of the donor's size",
    }.items():
        assert f"{words} does {effects[name]:.3g}" in found.clause
    assert "random" not in found.clause, "the weaker of noise and random"
    assert "40 harmful preference pairs in 36 clusters" in found.basis


def test_where_no_pairs_are_harmful_the_first_condition_speaks(
    tables: dict[str, pd.DataFrame],
) -> None:
    for table in tables.values():
        if "condition" in table:
            table["condition"] = table["condition"].replace(
                {"harmful": "helpful", "harmless": "honest"}
            )
    assert "counted on helpful pairs" in point(tables, SPREAD).clause


def test_a_pair_that_missed_the_gate_says_so_with_its_margins(
    tables: dict[str, pd.DataFrame],
) -> None:
    margins = tables["preference_margins"]
    lost = margins["pair"] == "b"
    margins.loc[lost, ["margin_tuned", "gap", "gap_low", "gap_high"]] = [0.2, 0.2, -1.0, 1.4]
    alone = {
        name: table[table["pair"] == "a"] if "pair" in table else table
        for name, table in tables.items()
    } | {"preference_margins": margins}
    found = point(alone, SPREAD, "b")
    assert found.verdict == "cannot be told"
    assert "0.2 (-1 to 1.4) nats above the base's on 36 clusters" in found.clause
    assert point(alone, TOKEN, "b").verdict == "not measured"
    margins.loc[lost, "gap_low"] = 0.1
    assert point(alone, SPREAD, "b").verdict == "not measured", "its job failed for another reason"
    assert [one.pair for one in answers(alone, order=("b", "a"))] == ["a"]
    both = alone | {"rank": synthetic_tables(("b",))["rank"]}
    assert [one.pair for one in answers(both, order=("b", "a"))] == ["b", "a"]


def test_only_what_ran_is_asked(tables: dict[str, pd.DataFrame]) -> None:
    questions = {one.question for one in answer_pair(tables, "a").points}
    audit = synthetic_tables(("a",))
    assert len(questions) == 2
    assert not questions & {one.question for one in answer_pair(audit, "a").points}
    both = answer_pair(audit | tables, "a").points
    assert len(both) == 2 + len(answer_pair(audit, "a").points)
    assert [one.verdict for one in both[-2:]] == ["measured", "measured"]


def test_each_kind_of_study_has_a_sentence_of_its_own(tables: dict[str, pd.DataFrame]) -> None:
    sentence = answer_pair(synthetic_tables(("a",)) | tables, "a").sentence
    assert sentence.startswith("Over ")
    assert ". Exchanged one by one, " in sentence
    assert "; patched at the last prompt token" in sentence
