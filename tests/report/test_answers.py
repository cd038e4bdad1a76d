"""Answers: each verdict follows its rule, whatever the numbers are."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.synthetic_causal import causal_tables
from report.synthetic_tables import synthetic_tables

from actshift.report.point import Answer, Point, number, percent, spans
from actshift.stages.report import answer_pair, answers

QUESTIONS = {
    "rank": "How low-rank",
    "template": "How much of the naive",
    "layers": "Which layers",
    "direction": "Does the first direction",
    "heldout": "How many directions carry",
    "concepts": "Is the shift of lower rank",
    "refusal": "Does one direction carry refusal",
    "ablation": "Do the shift's first directions",
}


def point(tables: dict[str, pd.DataFrame], which: str) -> Point:
    found = answer_pair(tables, "x").points
    return next(p for p in found if p.question.startswith(QUESTIONS[which]))


def inflation(naive: int, template: int, spread: float) -> pd.DataFrame:
    log = np.log(naive / template)
    return pd.DataFrame([
        {"pair": "x", "inputs": "harmful", "layer": layer, "n": 96, "rank_naive": naive,
         "rank_template": template, "ratio": naive / template, "log_ratio": log,
         "log_ratio_low": log - spread, "log_ratio_high": log + spread, "draws": 50}
        for layer in range(6)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("naive", "template", "spread", "verdict", "words"),
    [
        (2, 1, 0.1, "cannot be told", "at the rank floor"),
        (40, 2, 0.1, "cannot be told", "at the rank floor"),
        (12, 4, 0.5, "measured", "inflates the rank 3 (range"),
        (5, 4, 0.5, "inconclusive", "is open"),
        (4, 12, 0.5, "measured", "smaller than the template one"),
    ],
)
def test_inflation_needs_rank_three_and_a_range_off_one(
    naive: int, template: int, spread: float, verdict: str, words: str
) -> None:
    found = point({"inflation": inflation(naive, template, spread)}, "template")
    assert found.verdict == verdict
    assert words in found.clause


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 2))
def test_no_inflation_claim_below_the_floor(naive: int, template: int, spread: float) -> None:
    found = point({"inflation": inflation(naive, template, spread)}, "template")
    assert (found.verdict == "cannot be told") == (min(naive, template) < 3)


@pytest.mark.parametrize(("d", "shown"), [(64, False), (1023, False), (1024, True), (4096, True)])
def test_rank_over_width_needs_a_wide_model(d: int, shown: bool) -> None:
    detail = point(synthetic_tables(("x",), d=d, n=200), "rank").detail
    assert ("Rank / d is not compared" in detail) != shown


def test_a_rank_near_the_number_of_prompts_is_not_called_low() -> None:
    tables = synthetic_tables(("x",), n=12)
    assert point(tables, "rank").verdict == "cannot be told"
    assert point(synthetic_tables(("x",), n=96), "rank").verdict == "measured"


def test_no_centring_ratio_at_the_floor() -> None:
    tables = synthetic_tables(("x",), decay=0.2)
    assert "no ratio is given" in point(tables, "rank").detail


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, "by construction"), (0.09, "by construction"), (0.3, "measured")]
)
def test_recovery_is_by_construction_unless_it_leaves_the_means(shift: float, verdict: str) -> None:
    tables = synthetic_tables(("x",))
    cosine = tables["cosine"]
    cosine["cos_refusal_from_means"] = cosine["cos_refusal"] - shift
    found = point(tables, "direction")
    assert found.verdict == verdict
    assert ("alone predict (" in found.clause) == (verdict == "by construction")


def test_one_layer_apart_is_named_and_does_not_decide() -> None:
    tables = synthetic_tables(("x",))
    cosine = tables["cosine"]
    apart = 0.3 * (cosine["layer"] == 0)
    cosine["cos_refusal_from_means"] = cosine["cos_refusal"] - apart
    found = point(tables, "direction")
    assert found.verdict == "by construction"
    assert "apart at layer 0)" in found.clause


def test_the_sign_of_a_singular_vector_changes_nothing() -> None:
    tables = synthetic_tables(("x",))
    before = answer_pair(tables, "x")
    for column in ("cos_refusal", "cos_refusal_centered", "cos_control_from_means"):
        tables["cosine"][column] *= -1
    assert answer_pair(tables, "x") == before


@pytest.mark.parametrize(("clusters", "verdict"), [(9, "cannot be told"), (10, "measured")])
def test_few_clusters_say_nothing_about_new_topics(clusters: int, verdict: str) -> None:
    tables = synthetic_tables(("x",))
    tables["heldout_rank"]["clusters_heldout"] = clusters
    assert point(tables, "heldout").verdict == verdict


@pytest.mark.parametrize(
    ("knee", "words"), [(0, "no fitted direction"), (1, "1 fitted direction carries"),
                        (2, "2 fitted directions carry"), (12, "at least 12 fitted")]
)  # fmt: skip
def test_the_knee_is_put_into_words(knee: int, words: str) -> None:
    tables = synthetic_tables(("x",))
    tables["heldout_rank"]["knee"] = knee
    assert words in point(tables, "heldout").clause


@pytest.mark.parametrize(
    ("rank", "shift", "verdict"),
    [
        (7, 4, "measured"),
        (6, 6, "inconclusive"),
        (8, 4, "cannot be told"),
        (6, 2, "cannot be told"),
    ],
)
def test_concepts_are_compared_between_floor_and_sample(
    rank: int, shift: int, verdict: str
) -> None:
    tables = synthetic_tables(("x",))
    low = np.log((rank - 1) / shift)
    new = {"rank_eps": rank, "rank_template": shift, "log_ratio_low": low}
    tables["concept_baseline"] = tables["concept_baseline"].assign(**new)
    assert point(tables, "concepts").verdict == verdict


def test_the_largest_layer_is_the_tables() -> None:
    tables = synthetic_tables(("x",))
    rank = tables["rank"]
    rank.loc[rank["layer"] == 2, "relative_shift_norm"] = 3.0
    assert "largest at layer 2 (3.00" in point(tables, "layers").clause


def test_each_point_of_a_whole_run_names_its_prompts() -> None:
    for found in answer_pair(synthetic_tables(("x",)), "x").points:
        assert re.search(r"\d+ prompts|Fitted on \d+|Matched n \d+", found.basis), found
        assert found.brief


def test_missing_tables_are_not_measured() -> None:
    tables = {"rank": synthetic_tables(("x",))["rank"]}
    verdicts = {p.verdict for p in answer_pair(tables, "x").points}
    assert verdicts == {"measured", "not measured"}
    assert answer_pair({}, "x") == answer_pair({}, "x")
    assert "nothing to answer from" in answer_pair({}, "x").sentence


def test_answers_follow_the_config_and_skip_pairs_without_rows() -> None:
    tables = synthetic_tables(("b", "a"))
    names = [one.pair for one in answers(tables, order=("a", "gone", "b"))]
    assert names == ["a", "b"]
    assert answers({}, order=("a",)) == []


def test_a_sentence_speaks_of_its_pair_alone() -> None:
    both = synthetic_tables(("x", "y"))
    alone: Answer = answer_pair(
        {k: t[t["pair"] == "x"] for k, t in both.items() if "pair" in t}, "x"
    )
    assert answer_pair(both, "x") == alone
    assert "language models" not in alone.sentence


@pytest.mark.parametrize(
    ("layers", "text"), [([], ""), ([3], "3"), ([2, 0, 1], "0-2"), ([0, 2, 3, 7], "0, 2-3, 7")]
)
def test_layers_are_written_as_ranges(layers: list[int], text: str) -> None:
    assert spans(layers) == text


def test_shares_are_not_rounded_to_all_or_nothing() -> None:
    assert [percent(x) for x in (0.9996, 0.5, 0.004)] == ["100.0 %", "50 %", "0.4 %"]
    assert [number(x) for x in (1.0, 1.3333, 12345.6, float("nan"))] == [
        "1",
        "1.33",
        "12346",
        "n/a",
    ]


def refusal(
    left: float, *, spread: float = 0.05, plain: float = 1.0, harmless: float = 0.95,
    clusters: int = 24, least: float = 0.95,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """A pair whose refusals fall to `left`, beside random draws that leave at least `least`."""
    table = causal_tables(("x",))["refusal_effect"]
    table = table[table["edit"] == "ablate"].assign(
        clusters=clusters, plain_refused=plain, refused=left, change=left - plain,
        low=left - plain - spread, high=left - plain + spread,
    )  # fmt: skip
    table["draws_low"] = np.where(table["control"] == "random", least, np.nan)
    table.loc[table["condition"] == "harmless", "refused"] = 0.0
    table["on_topic"] = np.where(table["condition"] == "harmless", harmless, 0.5)
    return {"refusal_effect": table}


@pytest.mark.parametrize(
    ("settings", "verdict", "words"),
    [
        ({"left": 0.0}, "measured", "it carries refusal"),
        ({"left": 0.45}, "measured", "it carries refusal"),
        ({"left": 0.5}, "inconclusive", "is open"),
        ({"left": 0.0, "least": 0.02}, "inconclusive", "is open"),
        ({"left": 0.9}, "measured", "does not carry half"),
        ({"left": 0.0, "plain": 0.7}, "cannot be told", "refuses too little"),
        ({"left": 0.0, "clusters": 9}, "cannot be told", "too few clusters"),
        ({"left": 0.0, "harmless": 0.1}, "cannot be told", "10 % of harmless prompts"),
    ],
)
def test_a_direction_carries_refusal_beyond_random_ones_and_leaves_answers(
    settings: dict, verdict: str, words: str
) -> None:
    if settings["left"] == 0.45:
        settings = {**settings, "spread": 0.04}
    found = point(refusal(**settings), "refusal")
    assert found.verdict == verdict
    assert words in found.clause
    assert "random directions leave at least" in found.clause
    assert f"{settings.get('clusters', 24)} unseen clusters" in found.clause


@pytest.mark.parametrize(
    ("gain", "status", "verdict", "words"),
    [
        ((0.3, 0.2, 0.4), "decided", "measured", "%) rise beyond the control"),
        ((0.3, 0.05, 0.5), "decided", "inconclusive", "leave open"),
        ((0.0, -0.05, 0.05), "decided", "measured", "do not rise"),
        ((0.3, 0.2, 0.4), "broken", "cannot be told", "the control broke"),
        ((np.nan, np.nan, np.nan), "no judge", "cannot be told", "no judge"),
    ],
)
def test_the_shift_is_judged_against_the_harmless_control(
    gain: tuple[float, float, float], status: str, verdict: str, words: str
) -> None:
    sweep = causal_tables(("x",))["ablation_sweep"]
    own = sweep["primary"]
    ends = ("over_harmless", "low", "high")
    sweep.loc[own, [f"complied_gain_{end}" for end in ends]] = gain
    sweep.loc[own, "status"] = status
    sweep.loc[own, "why"] = "the control broke" if status == "broken" else ""
    found = point({"ablation_sweep": sweep}, "ablation")
    assert found.verdict == verdict
    assert words in found.clause
    control = sweep[
        (sweep["frame"] == "template_harmless") & (sweep["k"] == 3) & (sweep["band"] == "narrow")
        & (sweep["edit"] == "zero") & (sweep["protocol"] == "heldout")
    ]  # fmt: skip
    assert f"as many of the harmless shift: {percent(control['refusal'].iloc[0])}" in found.clause
    assert "24 unseen clusters" in found.clause


def test_causal_questions_are_asked_only_where_a_study_ran() -> None:
    without = answer_pair(synthetic_tables(("x",)), "x")
    assert not [p for p in without.points if "refusal" in p.question and "one" in p.question]
    both = answer_pair(synthetic_tables(("x",)) | causal_tables(("x",)), "x")
    assert len(both.points) == len(without.points) + 2
    other = answer_pair(synthetic_tables(("x",)) | causal_tables(("y",)), "x")
    assert [p.verdict for p in other.points[-2:]] == ["not measured"] * 2
