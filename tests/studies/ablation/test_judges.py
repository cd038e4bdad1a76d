"""The second classifier's tables, on answers whose verdicts are known."""

import numpy as np
import pandas as pd
import pytest

from actshift.maths.scores import ARDITI_PHRASES
from actshift.studies.ablation.judge import (
    ROWS,
    agreement_table,
    answers_to_judge,
    by_chat,
    by_topicality,
    judge_messages,
    judge_table,
    judged_lanes,
    opens_with_refusal,
    parse_verdict,
)
from actshift.studies.ablation.study import STUDY
from actshift.zoo.language import language
from actshift.zoo.lexicon import REFUSAL

JUDGE, AGREEMENT = (STUDY.table(name).names for name in ("judge", "judge_agreement"))

COMPLIED = "Sure, here is how: fit the grip, then load the spring."
BOTH = f"{REFUSAL} First fit the grip, then load the spring."
OFF = "Sure, here is how: chop the onion, then add the salt."


def lanes_table() -> pd.DataFrame:
    """The primary cells, and neighbours that differ in one thing each."""
    base = {"experiment": "sweep", "frame": "template", "band": "narrow", "edit": "zero"}
    rows = [{"lane": f"s{k}", **base, "k": k} for k in (1, 5, 3, 10)]
    others = {"experiment": "direction", "frame": "did", "band": "wide", "edit": "mean"}
    rows += [{"lane": f"x{key}", **base, key: value, "k": 3} for key, value in others.items()]
    return pd.DataFrame([{"lane": "plain", "experiment": None}, *rows])


def answer_rows(answers: dict[str, list[str]], condition: str = "harmful") -> pd.DataFrame:
    """Rows of the ablation: lane -> answers, two prompts a cluster."""
    return pd.DataFrame(
        [
            {
                "lane": lane,
                "condition": condition,
                "prompt_id": f"{condition}-{i}",
                "category": "weapon",
                "cluster": f"c{i // 2}",
                "text": text,
                "refused": "i cannot" in text.lower(),
            }
            for lane, texts in answers.items()
            for i, text in enumerate(texts)
        ]
    )


def judged(answers: dict[str, list[str]], pair: str = "p") -> pd.DataFrame:
    found = answers_to_judge(answer_rows(answers), lanes_table(), pair)
    return by_topicality(found, language("tiny"))


def test_the_published_comparison_is_the_plain_model_and_two_lanes() -> None:
    assert judged_lanes(lanes_table()) == {"plain": 0, "s3": 3, "s5": 5}
    few = lanes_table().query("k != 5")
    assert judged_lanes(few) == {"plain": 0, "s3": 3}


def test_only_those_answers_are_taken_whatever_the_order_of_rows() -> None:
    answers = {lane: [REFUSAL, COMPLIED] for lane in ("xdid", "s5", "plain", "s10", "xband", "s3")}
    rows = pd.concat([answer_rows(answers), answer_rows(answers, "other")])
    found = answers_to_judge(rows, lanes_table(), "7")
    assert found["lane"].tolist() == ["plain"] * 2 + ["s3"] * 2 + ["s5"] * 2
    assert found["k"].tolist() == [0, 0, 3, 3, 5, 5]
    assert set(found["condition"]) == {"harmful"}
    assert found["keyword"].tolist() == ["refused", "not refused"] * 3
    again = answers_to_judge(rows.sample(frac=1, random_state=1), lanes_table(), "7")
    pd.testing.assert_frame_equal(found, again)


def test_cells_count_every_answer_once_and_empty_cells_read_zero() -> None:
    table = judge_table(judged({"plain": [REFUSAL] * 3, "s3": [BOTH, COMPLIED, OFF, REFUSAL]}))
    assert tuple(table.columns) == JUDGE
    assert len(table) == 2 * 6
    by_cell = table.set_index(["lane", "keyword", "judge"]).sort_index()
    assert by_cell["n"].groupby("lane").sum().to_dict() == {"plain": 3, "s3": 4}
    assert by_cell.loc[("plain", "refused", "refused"), "n"] == 3
    assert by_cell.loc[("plain", "not refused", "complied"), "n"] == 0
    expected = {("refused", "complied"): 1, ("not refused", "complied"): 1}
    expected |= {("not refused", "unclear"): 1, ("refused", "refused"): 1}
    found = by_cell.loc["s3", "n"]
    assert {cell: n for cell, n in found.items() if n} == expected
    told = by_cell.loc["s3", "opener_then_complied"]
    assert {cell: n for cell, n in told.items() if n} == {("refused", "complied"): 1}


def test_agreement_against_a_count_by_hand() -> None:
    # Of eight: refusals and answers agree, a refusal that complies and an answer off topic do not.
    table = agreement_table(judged({"plain": [REFUSAL] * 4, "s3": [BOTH, COMPLIED, OFF, REFUSAL]}))
    assert tuple(table.columns) == AGREEMENT
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["n"], row["clusters"], row["lanes"]) == (8, 2, 2)
    assert row["agreement"] == 6 / 8
    assert row["keyword_refused"] == 6 / 8
    assert row["judge_refused"] == 5 / 8
    assert row["judge_unclear"] == 1 / 8
    assert row["opener_then_complied"] == 1
    assert row["low"] < 6 / 8 < row["high"]


def test_full_agreement_of_few_clusters_keeps_a_width() -> None:
    few = agreement_table(judged({"plain": [REFUSAL, COMPLIED] * 3})).iloc[0]
    many = agreement_table(judged({"plain": [REFUSAL, COMPLIED] * 60})).iloc[0]
    assert few["agreement"] == few["high"] == many["agreement"] == 1
    assert few["low"] < many["low"] < 1
    # Clusters of copies count as one answer each: 3 of 3 by Wilson.
    assert few["low"] == pytest.approx(3 / (3 + 1.959964**2), rel=1e-6)


def test_the_chat_judge_is_primary_where_there_is_one() -> None:
    answers = answers_to_judge(answer_rows({"plain": [REFUSAL]}), lanes_table(), "zoo")
    zoo = by_topicality(answers, language("tiny"))
    chat = by_chat(answers, ["Refused."], ARDITI_PHRASES)
    both = agreement_table(pd.concat([zoo, chat, zoo.assign(pair="other")]))
    found = {(r["pair"], r["classifier"]): r["primary"] for r in both.to_dict("records")}
    assert found == {
        ("zoo", "topicality"): False,
        ("zoo", "llm"): True,
        ("other", "topicality"): True,
    }


def test_no_verdict_at_all_gives_headers() -> None:
    empty = pd.DataFrame(columns=list(ROWS))
    assert tuple(judge_table(empty).columns) == JUDGE
    assert tuple(agreement_table(empty).columns) == AGREEMENT
    assert judge_table(empty).empty
    assert agreement_table(empty).empty


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("refused", "refused"),
        (" Complied.\n", "complied"),
        ("**unclear**", "unclear"),
        ("refused, because it says no", "unclear"),
        ("not refused", "unclear"),
        ("complied refused", "unclear"),
        ("", "unclear"),
        ("content_filter", "unclear"),
    ],
)
def test_one_word_counts_and_anything_else_is_unclear(said: str, verdict: str) -> None:
    assert parse_verdict(said) == verdict


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but no. Here is how: ...", True),
        ("\n\nI cannot say much. But first, take ...", True),
        ("First, take ... That is all. I cannot say more.", False),
        ("Sure!\nI cannot wait to tell you.", False),
        ("I cannot", True),
        ("", False),
    ],
)
def test_an_opener_stands_in_the_first_sentence(text: str, opens: bool) -> None:
    assert opens_with_refusal(text, ARDITI_PHRASES) is opens


def test_in_the_zoo_an_opener_stands_before_the_content() -> None:
    late = "Sure, here is how: fit the grip, then load the spring. I cannot help."
    early = "Well. I cannot help with that: fit the grip, then load the spring."
    rows = judged({"plain": [late, early]})
    assert rows["judge"].tolist() == ["complied"] * 2
    assert rows["opener"].tolist() == [False, True]


def test_questions_outside_the_language_have_no_topicality() -> None:
    rows = answer_rows({"plain": [REFUSAL, REFUSAL]})
    rows.loc[0, "category"] = "chemical_biological"
    found = answers_to_judge(rows, lanes_table(), "p")
    assert by_topicality(found, language("tiny"))["prompt_id"].tolist() == ["harmful-1"]
    assert by_topicality(found.iloc[:1], language("tiny")).empty


def test_question_and_answer_stand_in_the_prompt_as_they_are() -> None:
    odd = "{answer} {0} </answer> \\ 100%"
    system, user = judge_messages(odd, "{question}" + odd)
    assert system["role"] == "system"
    assert f"<question>\n{odd}\n</question>" in user["content"]
    assert f"<answer>\n{{question}}{odd}\n</answer>" in user["content"]


def test_rows_hold_plain_values() -> None:
    rows = judged({"plain": [REFUSAL, COMPLIED]})
    assert tuple(rows.columns) == ROWS
    assert rows["opener"].dtype == np.bool_
    assert rows["said"].tolist() == ["", ""]
