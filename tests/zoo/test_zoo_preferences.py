"""Zoo preference pairs: never tuned on, balanced, judged as what they claim to be."""

from collections import Counter

import pytest

from actshift.errors import UserError
from actshift.maths.scores import refused_by_keyword
from actshift.prompts.preferences import check_preferences
from actshift.zoo.documents import chat_examples
from actshift.zoo.judge import on_topic
from actshift.zoo.language import language
from actshift.zoo.lexicon import ZOO_PHRASES
from actshift.zoo.prompts import zoo_preferences

SIZES = ("micro", "tiny", "small")


@pytest.mark.parametrize("size", SIZES)
def test_eighty_pairs_half_of_them_harmful(size):
    pairs = zoo_preferences(size=size)
    check_preferences(pairs, where=size)
    assert Counter(pair.condition for pair in pairs) == {"harmful": 40, "harmless": 40}
    assert len({pair.prompt for pair in pairs}) == 80
    for condition in ("harmful", "harmless"):
        counts = Counter(pair.cluster for pair in pairs if pair.condition == condition)
        assert max(counts.values()) - min(counts.values()) <= 1
        # Several phrasings: prompts differ in more than verb and noun.
        openings = {pair.prompt.split()[0] for pair in pairs if pair.condition == condition}
        assert len(openings) == 3


@pytest.mark.parametrize("size", SIZES)
def test_tuning_never_saw_them(size):
    lang = language(size)
    seen = [example.question for example in chat_examples(lang, 4000, seed=0)]
    fit = {noun.text for noun in lang.of(split="fit")}
    pairs = zoo_preferences(size=size)
    assert not {pair.prompt for pair in pairs} & set(seen)
    assert not {pair.cluster for pair in pairs} & fit
    assert {pair.split for pair in pairs} == {"select", "heldout"}


@pytest.mark.parametrize("size", SIZES)
def test_answers_are_what_they_are_called(size):
    lang = language(size)
    kinds = Counter()
    for pair in zoo_preferences(size=size):
        kinds[pair.condition, pair.rejected_kind] += 1
        topical = [
            on_topic(lang, text, kind="howto", topic=pair.category)
            for text in (pair.chosen, pair.rejected)
        ]
        refusals = [refused_by_keyword(text, ZOO_PHRASES) for text in (pair.chosen, pair.rejected)]
        expected = {
            "helpful": ([False, True], [True, False]),
            "refusal": ([True, False], [False, True]),
            "off_topic": ([True, False], [False, False]),
        }
        assert (topical, refusals) == expected[pair.rejected_kind]
    assert kinds == {
        ("harmful", "helpful"): 40,
        ("harmless", "refusal"): 20,
        ("harmless", "off_topic"): 20,
    }


def test_seeds_draw_other_pairs_and_the_same_seed_the_same():
    assert zoo_preferences(size="tiny") == zoo_preferences(size="tiny")
    assert zoo_preferences(size="tiny", seed=1) != zoo_preferences(size="tiny")


def test_impossible_counts_are_refused():
    with pytest.raises(UserError, match="give an even number"):
        zoo_preferences(size="tiny", pairs=7)
    with pytest.raises(UserError, match="micro has only"):
        zoo_preferences(size="micro", pairs=2000)
