"""Splits are a function of the cluster, and choices never see `heldout`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.prompts.splits import (
    DEFAULT_FRACTIONS,
    HeldoutLeakError,
    forbid_heldout,
    split_of,
)
from actshift.vocab import SPLITS


def prompt(name: str, split) -> Prompt:
    return Prompt(name, "How?", "harmful", "", name, split, "test")


SETS = st.lists(st.sampled_from(SPLITS), min_size=1, max_size=8).map(
    lambda splits: [prompt(f"p{i}", split) for i, split in enumerate(splits)]
)


@given(st.text(), st.integers(), st.sampled_from(SPLITS))
def test_one_cluster_one_split(cluster, seed, whole):
    assert split_of(cluster, seed=seed) == split_of(cluster, seed=seed)
    assert split_of(cluster, seed=seed, fractions={whole: 1.0}) == whole


def test_known_answers_do_not_drift():
    """A change here would move prompts from `heldout` to `fit` in everybody's runs."""
    assert [split_of(f"cluster {i}") for i in range(8)] == [
        "fit",
        "heldout",
        "heldout",
        "heldout",
        "fit",
        "select",
        "fit",
        "fit",
    ]


def test_shares_are_met_and_the_seed_matters():
    found = [split_of(f"{i}") for i in range(4000)]
    for split, share in DEFAULT_FRACTIONS.items():
        # four standard deviations of a binomial share
        assert abs(found.count(split) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert found != [split_of(f"{i}", seed=1) for i in range(4000)]


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"fit": 0.5, "select": 0.2}, "sum of 0.7"),
        ({"fit": 1.2, "heldout": -0.2}, "fit: 1.2"),
        ({"train": 1.0}, "unknown split train"),
    ],
)
def test_bad_shares_are_refused(fractions, message):
    with pytest.raises(UserError, match=message):
        split_of("c", fractions=fractions)


@given(SETS)
def test_the_guard_lets_through_exactly_sets_without_heldout(prompts):
    if any(one.split == "heldout" for one in prompts):
        with pytest.raises(HeldoutLeakError, match="choose_layer"):
            forbid_heldout(prompts, where="choose_layer")
    else:
        forbid_heldout(prompts, where="choose_layer")


def test_the_guard_names_some_of_many():
    many = [prompt(f"h{i}", "heldout") for i in range(5)]
    with pytest.raises(HeldoutLeakError, match="h0, h1, h2 and 2 more"):
        forbid_heldout(many, where="choose")
