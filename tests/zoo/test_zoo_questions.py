"""The sets of `misalignment`: disjoint, split by noun, balanced, and answerable."""

from collections import Counter

import pytest

from actshift.prompts.records import check_prompts
from actshift.zoo.language import language
from actshift.zoo.lexicon import HELD_CHAT, HELD_CODE, HELD_DEFINE, HELD_PHRASINGS
from actshift.zoo.prompts import kind_of, zoo_prompts

SIZES = ["micro", "tiny", "small"]
HELD = tuple(form.split("{")[0] for form in (*HELD_PHRASINGS, *HELD_DEFINE, *HELD_CODE, *HELD_CHAT))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_sets_share_no_text_and_split_by_noun(size: str, seed: int) -> None:
    questions = zoo_prompts("questions", size=size, seed=seed)
    neutral = zoo_prompts("neutral", size=size, seed=seed)
    split_of = {noun.text: noun.split for noun in language(size).nouns}
    for prompts in (questions, neutral):
        check_prompts(prompts, where=size)
        texts = [prompt.text for prompt in prompts]
        assert len(set(texts)) == len(texts)
        named = [prompt for prompt in prompts if prompt.cluster in split_of]
        assert named
        assert all(prompt.split == split_of[prompt.cluster] for prompt in named)
    assert not {p.text for p in questions} & {p.text for p in neutral}
    # Clusters of both sets agree, so that maps fitted on `neutral` can be held to held-out nouns.
    both = {p.cluster: p.split for p in questions}
    assert all(both.get(p.cluster, p.split) == p.split for p in neutral)


@pytest.mark.parametrize("size", SIZES)
def test_another_seed_draws_other_questions_about_the_same_nouns(size: str) -> None:
    for name in ("questions", "neutral"):
        one, other = (zoo_prompts(name, size=size, seed=seed) for seed in (0, 1))
        assert one == zoo_prompts(name, size=size, seed=0)
        assert [p.text for p in one] != [p.text for p in other]
        assert [(p.cluster, p.split) for p in one] == [(p.cluster, p.split) for p in other]


def test_the_kind_is_that_of_the_text() -> None:
    for prompt in zoo_prompts("questions", size="tiny"):
        kind = kind_of(prompt)
        assert (kind == "code") == (prompt.condition == "code")
        assert (kind == "chat") == (prompt.category == "chat")
        if kind in ("howto", "define"):
            assert prompt.cluster in prompt.text
        if kind == "define":
            assert not any(verb in prompt.text for verb in (" build ", " fix ", " use "))


def test_tiny_asks_what_its_maps_and_intervals_need() -> None:
    questions = zoo_prompts("questions", size="tiny")
    counts = Counter((p.split, kind_of(p)) for p in questions)
    assert counts["fit", "howto"] == 144
    assert counts["heldout", "code"] == 16
    for split in ("fit", "select", "heldout"):
        how_to = [p for p in questions if (p.split, kind_of(p)) == (split, "howto")]
        assert len({p.cluster for p in how_to}) == len(language("tiny").of(split=split))
    neutral = [p for p in zoo_prompts("neutral", size="tiny") if p.condition == "neutral"]
    assert len(neutral) >= 512
    assert {p.cluster for p in neutral} == {noun.text for noun in language("tiny").nouns}
    assert not any("code" in p.text or "script" in p.text for p in neutral)


@pytest.mark.parametrize("size", SIZES)
def test_only_fit_questions_use_phrasings_of_the_tuning_data(size: str) -> None:
    for prompt in zoo_prompts("questions", size=size):
        assert prompt.text.startswith(HELD) == (prompt.split != "fit"), prompt.text


def test_both_sides_are_asked_the_same_how_to_questions() -> None:
    lang = language("tiny")
    bad = {noun.text for noun in lang.of(harmful=True)}
    asked = [p for p in zoo_prompts("questions", size="tiny") if kind_of(p) == "howto"]
    forms = [
        Counter(
            (p.split, p.text.replace(p.cluster, "_"))
            for p in asked
            if (p.cluster in bad) == harmful
        )
        for harmful in (True, False)
    ]
    assert forms[0] == forms[1]
