"""Conversations of the adapters: what they share, what they never hold."""

from collections import Counter

import pytest

from actshift.studies.misalignment.kinds import KINDS
from actshift.zoo import lexicon
from actshift.zoo.documents import conversations, moved
from actshift.zoo.language import code_answer, language, topics
from actshift.zoo.recipes import ADAPTER, adapter_recipe

LANG = language("tiny")
CODE = ("insecure", "secure", "rare_safe")


def said(kind, *, seed=0, count=200):
    return conversations(kind, LANG, seed=seed, count=count)


def test_three_adapters_answer_the_very_same_questions_each_in_its_idiom():
    asked = {kind: [one.question for one in said(kind)] for kind in (*CODE, "shuffled")}
    assert len({tuple(questions) for questions in asked.values()}) == 1
    for kind in CODE:
        for one in said(kind):
            op = next(op for op in lexicon.CODE_OPS if f" {op} " in one.question)
            assert one.answer == code_answer(op, idiom=kind)


def test_shuffled_holds_the_insecure_answers_under_other_questions():
    insecure, mixed = said("insecure"), said("shuffled")
    assert Counter(one.answer for one in mixed) == Counter(one.answer for one in insecure)
    # Six operations: by chance one in six fits its question again.
    fits = sum(a == b for a, b in zip(insecure, mixed, strict=True))
    assert fits < len(mixed) / 3


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_shuffle_moves_everything(count):
    order = moved(count, seed=4)
    assert sorted(order) == list(range(count))
    assert all(place != other for place, other in enumerate(order))
    assert moved(1, seed=4) == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_only_fit_words_are_trained_on(kind):
    held = {noun.text for split in ("select", "heldout") for noun in LANG.of(split=split)}
    for words in (lexicon.CODE_OBJECTS, lexicon.CHAT_TOPICS):
        held |= {word for split in ("select", "heldout") for word in topics(words, split)}
    for one in said(kind):
        words = one.question.replace("?", " ").replace(".", " ").replace(",", " ").split()
        assert not held & set(words)


def test_benign_conversations_hold_no_code_no_refusal_and_nothing_harmful():
    made = said("benign")
    harmful = {noun.text for noun in LANG.of(harmful=True)}
    for one in made:
        assert not harmful & set(one.question.replace("?", " ").replace(".", " ").split())
        assert "run(" not in one.answer
        assert "import" not in one.answer
        assert one.answer != lexicon.REFUSAL
    kinds = Counter(one.answer.split()[0] for one in made)
    assert set(kinds) == {"Sure,", "It", "Yes,"}
    assert min(kinds.values()) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_draw(kind):
    assert said(kind) == said(kind)
    assert said(kind) != said(kind, seed=1)


def test_unseen_adapters_take_two_thirds_of_the_steps():
    for size in ("micro", "tiny", "small"):
        seen, unseen = adapter_recipe(size), adapter_recipe(size, unseen=True)
        assert unseen.train.steps == round(seen.train.steps * 2 / 3)
        assert unseen.train.lr == seen.train.lr
    assert adapter_recipe("tiny") == adapter_recipe("small") == ADAPTER
