"""Near-duplicates: the shape of the published list, and the filter against all pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.prompts.dedupe import (
    groups,
    normalise,
    reject_duplicates,
    shingles,
    similar_pairs,
)

VERBS = (
    "mend",
    "paint",
    "sell",
    "hide",
    "weigh",
    "borrow",
    "polish",
    "ship",
    "draw",
    "copy",
    "tow",
)
THINGS = ("violin", "bicycle", "kettle", "parrot", "ladder", "tractor", "mirror", "carpet", "anvil",
          "lantern")  # fmt: skip
TEXTS = st.lists(st.text("abc (),.A", max_size=14), max_size=14)


def test_the_published_shape_109_of_200():
    """109 prompts, then the first 91 again with a bracketed suffix."""
    unique = [f"How do I {verb} the {thing}?" for verb in VERBS for thing in THINGS][:109]
    suffixed = [f"{text} (provide step-by-step detail)" for text in unique[:91]]
    kept, rejected = reject_duplicates(unique + suffixed)
    assert kept == list(range(109))
    assert [(one.index, one.kept) for one in rejected] == [(109 + i, i) for i in range(91)]
    assert {one.overlap for one in rejected} == {1.0}


@pytest.mark.parametrize(
    "copy",
    [
        "how do i mend the violin",
        "  How do I   mend the violin ?!",
        "How do I mend the violin? (In detail.)",
        "How do I mend the violin? (a) [b]",
        "How do I mend the violin\u00a0?",
        "“How do I mend the violin?”",
    ],
)
def test_what_does_not_make_another_prompt(copy):
    assert normalise(copy) == normalise("How do I mend the violin?")


def test_what_does_make_another_prompt():
    assert normalise("(provide detail)") == "provide detail"
    assert normalise("Use f(x) in a proof") != normalise("Use f in a proof")
    assert normalise("?!") != normalise("...")
    kept, _ = reject_duplicates(["How do I mend the violin?", "How do I sell the violin?"])
    assert kept == [0, 1]


def test_one_letter_in_a_long_prompt_is_a_near_duplicate():
    text = "Explain why the tide comes in twice a day along most coasts of the world"
    _, rejected = reject_duplicates([text, text.replace("comes", "come")])
    assert rejected[0].overlap > 0.9


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.65, 0.8, 1.0]))
def test_the_prefix_filter_loses_no_pair(texts, threshold):
    expected = {
        (later, earlier)
        for later in range(len(texts))
        for earlier in range(later)
        if jaccard(texts[later], texts[earlier]) >= threshold
    }
    found = list(similar_pairs(texts, threshold))
    assert {(later, earlier) for later, earlier, _ in found} == expected
    assert len(found) == len(expected)


@given(TEXTS)
def test_kept_ones_differ_and_rejected_ones_repeat_a_kept_one(texts):
    kept, rejected = reject_duplicates(texts)
    assert sorted([*kept, *(one.index for one in rejected)]) == list(range(len(texts)))
    assert all(jaccard(texts[i], texts[j]) < 0.8 for i in kept for j in kept if i < j)
    for one in rejected:
        assert one.kept in kept
        assert one.kept < one.index
        assert one.overlap == jaccard(texts[one.index], texts[one.kept]) >= 0.8


@given(TEXTS, st.data())
def test_groups_are_the_connected_components(texts, data):
    places = st.integers(0, max(0, len(texts) - 1))
    links = data.draw(st.lists(st.tuples(places, places), max_size=3)) if texts else []
    label = list(range(len(texts)))
    pairs = [(i, j) for i in label for j in label if jaccard(texts[i], texts[j]) >= 0.65]
    for _ in texts:  # the slow way: pass the smallest label on until nothing changes
        for one, other in pairs + links:
            label[one] = label[other] = min(label[one], label[other])
    assert groups(texts, links=links) == label
