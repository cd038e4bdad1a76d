"""Preference pairs: their file, HH-RLHF rows, and tokens that split cleanly behind the prompt."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actshift.errors import UserError
from actshift.prompts.pair_tokens import encode_pairs
from actshift.prompts.preferences import (
    Preference,
    check_preferences,
    from_row,
    hh_preferences,
    read_preferences,
    to_jsonl,
)
from actshift.prompts.readers import read_rows
from actshift.prompts.templates import render_chat

PAIR = Preference(
    id="a",
    prompt="How do I bake bread?",
    chosen="Please mend the wheel.",
    rejected="Tell me about the garden and the river.",
    condition="harmless",
    category="",
    cluster="bread",
    split="fit",
    source="test",
)


def dialogue(*turns: str, answer: str) -> str:
    """Users and answers in turn, in the data set's own form."""
    who = ("Human", "Assistant")
    said = "".join(f"\n\n{who[i % 2]}: {turn}" for i, turn in enumerate(turns))
    return f"{said}\n\nAssistant:{answer}"


def row(*turns: str, chosen: str = " Yes.", rejected: str = " No.") -> dict[str, Any]:
    return {
        "chosen": dialogue(*turns, answer=chosen),
        "rejected": dialogue(*turns, answer=rejected),
    }


def load(rows: list[dict[str, Any]], **options: Any) -> Any:
    return hh_preferences(rows, condition="harmless", source="hh", key="prompts.hh", **options)


QUESTIONS = (
    "How do I bake a loaf of bread?",
    "What is the capital of that country?",
    "My neighbour plays loud music, what now?",
    "Which river runs through the old town?",
    "Can you recommend a novel about sailing?",
    "Why does my bicycle squeak in the rain?",
)


def test_the_file_round_trips(tmp_path: Path):
    pairs = [PAIR, replace(PAIR, id="b", history=("Hi", "Hello"), rejected_kind="refusal")]
    path = tmp_path / "pairs.jsonl"
    path.write_text(to_jsonl(pairs), encoding="utf-8")
    assert read_preferences(path) == pairs
    assert [m["role"] for m in pairs[1].messages()] == ["user", "assistant", "user"]
    assert pairs[1].messages()[-1]["content"] == PAIR.prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": None}, "chosen must be a string"),
        ({"chosen": " "}, "chosen is empty"),
        ({"split": "train"}, "split 'train' is not one of"),
        ({"history": "Hi"}, "history must be a list"),
        ({"extra": "x"}, "unknown extra"),
    ],
)
def test_bad_rows_are_named(change, message):
    good = json.loads(to_jsonl([PAIR]))
    with pytest.raises(UserError, match=f"f:1: .*{message}"):
        from_row({**good, **change}, where="f:1")
    with pytest.raises(UserError, match="missing cluster"):
        from_row({key: value for key, value in good.items() if key != "cluster"}, where="f:1")
    with pytest.raises(UserError, match="expected a JSON object"):
        from_row([], where="f:1")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no preference pairs"),
        ([PAIR, PAIR], "id 'a' occurs twice"),
        ([replace(PAIR, rejected=f" {PAIR.chosen}")], "has the same answer twice"),
        ([replace(PAIR, history=("Hi",))], "history must end with an answer"),
        ([PAIR, replace(PAIR, id="b", split="heldout")], "cluster 'bread' lies in the splits"),
    ],
)
def test_bad_sets_are_refused(pairs, message):
    with pytest.raises(UserError, match=message):
        check_preferences(pairs, where="f")


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        read_preferences(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"bad\.jsonl:1: not JSON"):
        read_preferences(tmp_path / "bad.jsonl")


def test_hh_splits_at_the_last_assistant_turn(tmp_path: Path):
    path = tmp_path / "test.jsonl.gz"
    one = row("Hi there", "Hello.\n\nHow are you?", "Fine. What is bread?", chosen=" Food.\n")
    path.write_bytes(gzip.compress(json.dumps(one).encode()))
    (pair,) = load(read_rows(path, key="k")).pairs
    assert pair.history == ("Hi there", "Hello.\n\nHow are you?")
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Fine. What is bread?", "Food.", "No.")
    assert (pair.condition, pair.source) == ("harmless", "hh#1")


def test_hh_refuses_and_counts():
    different = row(QUESTIONS[0])
    different["rejected"] = row(QUESTIONS[1])["rejected"]
    rows = [
        row(QUESTIONS[0]),
        different,
        row(QUESTIONS[1], chosen=" "),
        row(QUESTIONS[2], chosen=" No. "),
        {"chosen": "\n\nHuman: only", "rejected": "\n\nHuman: only"},
        row(QUESTIONS[3], "an answer"),
        row(QUESTIONS[0].upper()),
    ]
    kept = load(rows)
    assert len(kept.pairs) == 1
    assert dict(kept.refused) == {
        "the two prompts differ": 1,
        "an answer is empty": 1,
        "the two answers are the same": 1,
        "no assistant turn": 1,
        "turns are not user's and answer's": 1,
        "repeats another prompt": 1,
    }
    assert kept.lines()[0] == "1 of 7 pairs kept"
    assert "  1 refused: the two prompts differ" in kept.lines()
    with pytest.raises(UserError, match=r"no preference pairs are left \(1 the two prompts differ"):
        load([different])
    with pytest.raises(UserError, match=r"prompts\.hh: row 1: column 'rejected' must hold"):
        load([{"chosen": "x"}])


def test_the_draw_depends_on_neither_order_nor_company():
    rows = [row(question) for question in QUESTIONS]
    few = [pair.prompt for pair in load(rows, limit=3).pairs]
    assert few == [pair.prompt for pair in load(rows[::-1], limit=3).pairs]
    assert len(few) == 3
    assert set(few) <= {pair.prompt for pair in load(rows).pairs} == set(QUESTIONS)
    draws = {frozenset(p.prompt for p in load(rows, limit=3, seed=s).pairs) for s in range(6)}
    assert len(draws) > 1
    check_preferences(load(rows).pairs, where="hh")


def test_tokens_follow_the_prompts_own(families):
    for style, tokenizer in families.items():
        kept = encode_pairs(tokenizer, [PAIR], max_tokens=400)
        (pair,) = kept.pairs
        text = render_chat(tokenizer, PAIR.prompt).text
        plain = {"add_special_tokens": False}
        assert list(pair.prompt) == tokenizer(text, **plain)["input_ids"], style
        for side, answer in zip(pair.sides, (PAIR.chosen, PAIR.rejected), strict=True):
            whole = tokenizer(text + answer, **plain)["input_ids"]
            assert list(pair.prompt + side) == whole, style
        if tokenizer.bos_token_id is not None:
            assert pair.prompt.count(tokenizer.bos_token_id) == 1
            assert tokenizer.bos_token_id not in pair.chosen + pair.rejected
        assert kept.refused.total() == 0


def test_matched_completions_are_cut_to_the_shorter(families):
    tokenizer = families["llama"]
    (natural,) = encode_pairs(tokenizer, [PAIR], max_tokens=400).pairs
    (matched,) = encode_pairs(tokenizer, [PAIR], length="matched", max_tokens=400).pairs
    assert len(natural.chosen) < len(natural.rejected)
    assert len(matched.chosen) == len(matched.rejected) == len(natural.chosen)
    assert matched.rejected == natural.rejected[: len(natural.chosen)]
    assert matched.prompt == natural.prompt


def test_earlier_turns_are_rendered(families):
    tokenizer = families["qwen"]
    pair = replace(PAIR, history=("Tell me how", "Please do"))
    (found,) = encode_pairs(tokenizer, [pair], max_tokens=400).pairs
    text = tokenizer.decode(list(found.prompt))
    assert text.index("Tell me how") < text.index("Please do") < text.index(PAIR.prompt)
    assert text.endswith("<|im_start|>assistant\n")


def test_unusable_pairs_are_counted(families):
    tokenizer = families["llama"]
    whole = len(tokenizer(render_chat(tokenizer, PAIR.prompt).text)["input_ids"])
    pairs = [
        PAIR,
        replace(PAIR, chosen="the river " * 200),
        replace(PAIR, rejected="the end <|eot_id|>"),
        replace(PAIR, rejected="  "),
        replace(PAIR, chosen="bread", rejected="bread "),
    ]
    kept = encode_pairs(tokenizer, pairs, max_tokens=whole + 40)
    assert len(kept.pairs) == 1
    assert dict(kept.refused) == {
        f"longer than {whole + 40} tokens": 1,
        "a completion holds a special token": 1,
        "a completion is empty": 1,
        "the two completions are the same tokens": 1,
    }
    # Cut to one length, a completion may turn out to be the beginning of the other.
    begun = replace(PAIR, chosen="the river", rejected="the river and the garden")
    cut = encode_pairs(tokenizer, [begun], length="matched", max_tokens=400)
    assert cut.refused["the two completions are the same tokens"] == 1


def test_a_completion_that_melts_into_the_prompt_is_refused(bare):
    bare.chat_template = (
        "{{ bos_token }}{{ messages[0]['content'] }} bicy"
        "{% if messages[1:] %}{{ messages[1]['content'] }}{% endif %}"
    )
    melting = replace(PAIR, chosen="cle wheel", rejected="cle")
    apart = replace(PAIR, id="b", chosen="<garden", rejected=".")
    kept = encode_pairs(bare, [melting, apart], max_tokens=400)
    assert [pair.id for pair in kept.pairs] == ["b"]
    assert dict(kept.refused) == {"a completion's first token melts into the prompt's last": 1}
    with pytest.raises(UserError, match="share a token, so no answer has tokens of its own"):
        encode_pairs(bare, [melting], max_tokens=400)
