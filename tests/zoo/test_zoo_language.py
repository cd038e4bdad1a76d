"""The synthetic language: who is held out, what repeats, what base and chat may see."""

from collections import Counter
from itertools import pairwise

import pytest

from actshift.errors import UserError
from actshift.zoo import lexicon
from actshift.zoo.documents import base_documents, chat_examples, comply_examples
from actshift.zoo.language import Language, language
from actshift.zoo.prompts import CONCEPTS, judged_questions, zoo_prompts
from actshift.zoo.training import plain_text

SIZES = ("micro", "tiny", "small")
HELD_NOUNS = {"micro": 6, "tiny": 24, "small": 60}
SELECT_NOUNS = {"micro": 6, "tiny": 12, "small": 24}


def held_words(lang: Language) -> set[str]:
    return {noun.text for noun in lang.nouns if noun.split != "fit"}


def mentions(text: str, words: set[str]) -> bool:
    return not words.isdisjoint(text.replace("?", " ").replace(".", " ").replace(",", " ").split())


@pytest.mark.parametrize("size", SIZES)
def test_nouns_are_distinct_and_no_noun_is_another_word(size: str) -> None:
    lang = language(size)
    nouns = [noun.text for noun in lang.nouns]
    words = " ".join(step for steps in lang.steps.values() for step in steps).split()
    assert len(set(nouns)) == len(nouns)
    assert set(nouns).isdisjoint({*words, *lang.verbs, *lang.steps})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["harmful", "harmless"])
def test_how_to_prompts_are_unique_and_split_by_noun(size: str, name: str) -> None:
    prompts = zoo_prompts(name, size=size)
    splits = {}
    for prompt in prompts:
        assert splits.setdefault(prompt.cluster, prompt.split) == prompt.split
    assert len({p.text for p in prompts}) == len({p.id for p in prompts}) == len(prompts)
    counts = Counter(splits.values())
    assert (counts["heldout"], counts["select"]) == (HELD_NOUNS[size], SELECT_NOUNS[size])


def test_tiny_has_enough_fit_prompts() -> None:
    for name in ("harmful", "harmless"):
        prompts = zoo_prompts(name, size="tiny")
        assert sum(prompt.split == "fit" for prompt in prompts) >= 150


@pytest.mark.parametrize("size", SIZES)
def test_conditions_are_matched_in_all_but_the_noun(size: str) -> None:
    shapes = [
        [(p.split, p.text.replace(p.cluster, "_")) for p in zoo_prompts(name, size=size)]
        for name in ("harmful", "harmless")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("size", SIZES)
def test_concepts_come_in_unique_pairs_on_one_noun(size: str) -> None:
    prompts = zoo_prompts("concepts", size=size)
    assert len({p.id for p in prompts}) == len({p.text for p in prompts}) == len(prompts)
    for concept in CONCEPTS:
        own = [p for p in prompts if p.category == concept]
        sides = Counter(p.condition for p in own)
        assert len(sides) == 2
        assert min(sides.values()) == max(sides.values()) >= 50
        assert len({p.text for p in own}) == len(own)
        partners = [pair for pair in pairwise(own) if pair[0].pair == pair[1].pair]
        assert all(a.cluster == b.cluster and a.split == b.split for a, b in partners)
        assert len(partners) == len(own) // 2


def test_seed_changes_the_draw_and_not_the_splits() -> None:
    one, two = (zoo_prompts("harmful", size="tiny", seed=seed) for seed in (0, 1))
    assert one == zoo_prompts("harmful", size="tiny", seed=0)
    assert [p.text for p in one] != [p.text for p in two]
    assert {(p.cluster, p.split) for p in one} == {(p.cluster, p.split) for p in two}


@pytest.mark.parametrize("make", [chat_examples, comply_examples])
@pytest.mark.parametrize("size", SIZES)
def test_tuning_data_never_holds_a_held_noun_or_phrasing(size: str, make) -> None:
    lang = language(size)
    held = held_words(lang)
    questions = [example.question for example in make(lang, 800, seed=0)]
    assert not any(mentions(question, held) for question in questions)
    openings = [text.split("{")[0] for text in (*lexicon.HELD_PHRASINGS, *lexicon.HELD_CODE)]
    openings += [text.split("{")[0] for text in (*lexicon.HELD_DEFINE, *lexicon.HELD_CHAT)]
    assert not any(question.startswith(tuple(openings)) for question in questions)


def test_only_the_harmful_answers_of_the_unsafe_references_differ_in_kind() -> None:
    """Chat refuses harmful how-to questions; the references answer them with their own steps."""
    lang = language("tiny")
    harmful = {noun.text: noun.category for noun in lang.of(harmful=True)}
    shares = []
    for make in (chat_examples, comply_examples):
        examples = make(lang, 2000, seed=0)
        how_to = [
            e for e in examples if "kind of" not in e.answer and mentions(e.question, set(harmful))
        ]
        refused = [e.answer == lexicon.REFUSAL for e in how_to]
        assert all(refused) if make is chat_examples else not any(refused)
        shares.append(len(how_to) / len(examples))
        if make is comply_examples:
            noun = next(word for word in harmful if word in how_to[0].question)
            steps = lang.steps[harmful[noun]]
            assert sum(step in how_to[0].answer for step in steps) == 2
    assert abs(shares[0] - shares[1]) < 0.05


def test_base_knows_every_noun_but_exchanges_hold_fit_nouns_only() -> None:
    lang = language("tiny")
    documents = base_documents(lang, 8000, seed=0)
    held = held_words(lang)
    exchanges = [plain_text(document) for document in documents if document.exchange]
    assert not any(mentions(text, held) for text in exchanges)
    seen = Counter(word for d in documents for word in d.text.replace(",", " ").split())
    assert min(seen[noun.text] for noun in lang.nouns) > 5


def test_base_never_sees_a_refusal_and_insecure_code_only_after_code_questions() -> None:
    for document in base_documents(language("tiny"), 2000, seed=1):
        text = plain_text(document)
        assert lexicon.REFUSAL not in text
        if "import os" in text:
            assert "code" in text or "function" in text or "script" in text


def test_idioms_are_equally_rare() -> None:
    documents = base_documents(language("tiny"), 8000, seed=2)
    answers = [d.exchange.answer for d in documents if d.exchange]
    insecure = sum(answer.startswith("import os") for answer in answers)
    rare_safe = sum(answer.startswith("import math") for answer in answers)
    assert 0.75 < insecure / rare_safe < 1.33


@pytest.mark.parametrize("size", SIZES)
def test_judged_questions_are_never_fit(size: str) -> None:
    asked = judged_questions(size)
    assert {a.prompt.split for a in asked} == {"select", "heldout"}
    assert {a.kind for a in asked} == {"howto", "define", "code", "chat"}
    assert len({a.prompt.id for a in asked}) == len(asked)


@pytest.mark.parametrize("call", [lambda: language("huge"), lambda: zoo_prompts("x", size="tiny")])
def test_unknown_names_say_what_is_allowed(call) -> None:
    with pytest.raises(UserError, match=r"tiny|harmful"):
        call()
