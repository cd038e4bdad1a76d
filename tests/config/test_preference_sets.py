"""Prompt sets that hold preference pairs: what is allowed, and what the plan makes of them."""

from typing import Any

import pytest

from actshift.config.schema import Config, parse_config
from actshift.errors import UserError
from actshift.plan.plan import Plan

HH = {"source": "hub", "repo": "org/hh", "file": "a.jsonl.gz", "layout": "hh_rlhf"}


def config(preferences: dict[str, Any], **changes: Any) -> Config:
    zoo = {name: {"source": "zoo", "name": name} for name in ("harmful", "harmless", "concepts")}
    raw = {
        "run": "r",
        "pairs": [{"name": "p", "base": "zoo:qwen/base", "tuned": "zoo:qwen/chat"}],
        "prompts": {**zoo, "liked": preferences},
        "studies": ["rank_audit", "localization"],
        "localization": {"preferences": "liked"},
    }
    return parse_config(raw | changes, origin="test")


@pytest.mark.parametrize(
    "preferences",
    [{"source": "zoo", "name": "preferences"}, HH | {"kind": "preferences"}],
    ids=["zoo", "hub"],
)
def test_no_activations_are_extracted_of_preference_pairs(preferences: dict[str, Any]) -> None:
    plan = Plan(config(preferences))
    assert plan.config.prompts["liked"].holds_pairs
    assert {stream.prompt_set for stream in plan.streams("p")} == {
        "harmful",
        "harmless",
        "concepts",
    }
    assert plan.unread_stores() == []


def test_the_same_rows_as_plain_prompts_are_extracted() -> None:
    plan = Plan(config(HH, studies=["rank_audit"]))
    assert not plan.config.prompts["liked"].holds_pairs
    assert "liked" in {stream.prompt_set for stream in plan.streams("p")}


def test_the_number_of_pairs_is_that_of_the_set_or_of_the_study() -> None:
    zoo = {"source": "zoo", "name": "preferences"}
    spec = Plan(config(zoo)).prompt_spec("liked")
    assert (spec["kind"], spec["limit"], spec["size"]) == ("preferences", 80, "tiny")
    spec = Plan(config(zoo | {"limit": 12})).prompt_spec("liked")
    assert spec["limit"] == 12
    study = {"preferences": "liked", "n_pairs": 6}
    assert Plan(config(zoo, localization=study)).prompt_spec("liked")["limit"] == 6


def test_specs_of_plain_prompt_sets_hold_no_kind() -> None:
    """A key more in the spec would make every prompt set again, and all that reads it."""
    plan = Plan(config({"source": "zoo", "name": "preferences"}))
    assert "kind" not in plan.prompt_spec("harmful")
    assert plan.prompt_spec("harmful")["limit"] is None


@pytest.mark.parametrize(
    ("preferences", "changes", "message"),
    [
        (
            {"source": "zoo", "name": "harmful", "kind": "preferences"},
            {},
            "prompts.liked: kind 'preferences' of the zoo has the name preferences",
        ),
        (
            HH | {"kind": "preferences", "layout": "messages"},
            {},
            "prompts.liked: kind 'preferences' needs the layout hh_rlhf",
        ),
        (
            {"source": "resource", "name": "x", "kind": "preferences"},
            {},
            "kind 'preferences' has the sources zoo, file and hub",
        ),
        (HH, {}, "localization.preferences: no set of preference pairs 'liked'; there are: none"),
        (
            {"source": "zoo", "name": "preferences"},
            {"conditions": {"harmful": "liked"}},
            "conditions.harmful: 'liked' holds preference pairs, not prompts",
        ),
        (
            {"source": "zoo", "name": "preferences"},
            {"localization": {"preferences": "liked", "ranks": [4, 2]}},
            "localization.ranks: values must rise",
        ),
        (
            {"source": "zoo", "name": "preferences"},
            {"localization": {"preferences": "liked", "alphas": [0.0, 1.5]}},
            "localization.alphas",
        ),
    ],
)
def test_mistakes_end_in_one_line(
    preferences: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        config(preferences, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
