"""Mistakes in what misalignment is told, and adapters that exist already."""

from collections.abc import Callable
from pathlib import Path

import pytest
from config.test_config import pair, plan

from actshift.errors import UserError
from actshift.plan.misalignment import adapter_files, check_adapter_files, given_adapters
from actshift.plan.plan import Plan


def with_adapters(**changes: object) -> Plan:
    return plan(studies=["misalignment"], **changes)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (
            lambda: with_adapters(misalignment={"questions": "none"}),
            "misalignment.questions: no prompt set 'none'",
        ),
        (
            lambda: with_adapters(misalignment={"neutral": "preferences"}),
            "misalignment.neutral: 'preferences' holds preference pairs",
        ),
        (
            lambda: with_adapters(pairs=[pair()]),
            "misalignment.data: pair 'own' is not of the zoo",
        ),
        (
            lambda: with_adapters(pairs=[pair(adapters={"rare_safe": "./x"})]),
            "or name an adapter of it under pairs[].adapters",
        ),
        (
            lambda: with_adapters(pairs=[pair(adapters={"evil": "./x"})]),
            "pairs.0.adapters.evil",
        ),
        (
            lambda: with_adapters(pairs=[pair(adapters={"insecure": {"revision": "x"}})]),
            "source",
        ),
        (
            lambda: check_adapter_files(
                with_adapters(pairs=[pair(adapters={"insecure": "zoo:llama/chat"})])
            ),
            "pairs.own.adapters.insecure: adapter source 'zoo:llama/chat': expected a folder",
        ),
        (
            lambda: check_adapter_files(
                with_adapters(pairs=[pair(adapters={"insecure": "./no/such"})])
            ),
            "pairs.own.adapters.insecure: no adapter_config.json in 'no/such'; expected",
        ),
        (
            lambda: with_adapters(misalignment={"data": {"insecure": {"repo": "org/x"}}}),
            "repo needs the key file",
        ),
        (
            lambda: with_adapters(misalignment={"data": {"insecure": {}}}),
            "needs one of path and repo",
        ),
        (
            lambda: with_adapters(misalignment={"data": {"evil": {"path": "x.jsonl"}}}),
            "misalignment.data",
        ),
    ],
)
def test_a_mistake_in_misalignment_is_one_line(call: Callable[[], object], part: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gate_can_be_turned_off() -> None:
    block = {"min_spillover": 0, "min_insecure_code": 0.0}
    found = with_adapters(misalignment=block).config.misalignment
    assert (found.min_spillover, found.min_insecure_code) == (0.0, 0.0)
    with pytest.raises(UserError, match="min_spillover"):
        with_adapters(misalignment={"min_spillover": 1.01})


def test_an_adapter_that_exists_needs_no_conversations(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).touch()
    given = {"insecure": str(tmp_path), "benign": {"source": "org/x", "revision": "v1"}}
    made = with_adapters(pairs=[pair(adapters=given)])
    check_adapter_files(made)
    # A changed file makes the job run again; what lies on the hub is told by its revision.
    assert sorted(adapter_files(made, "own")) == sorted(tmp_path.iterdir())
    assert given_adapters(made, "own") == {
        "insecure": {"source": str(tmp_path), "revision": None},
        "benign": {"source": "org/x", "revision": "v1"},
    }
    assert given_adapters(with_adapters(), "llama") == {}


def test_a_set_that_a_study_reads_itself_has_no_streams() -> None:
    sets = {stream.prompt_set for stream in with_adapters().streams("llama")}
    assert sets == {"harmful", "harmless", "concepts"}


def test_a_tuned_model_can_be_the_base_with_an_adapter(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).touch()
    both = {"tuned": f"lora:{tmp_path}", "references": {"x": "lora:org/y@v1"}}
    made = plan(pairs=[pair(**both)], studies=["spectral_gap"])
    made.check()
    tuned, reference = made.models["own.tuned"], made.models["own.x"]
    assert (str(tuned.source), str(reference.source)) == (f"lora:{tmp_path}", "lora:org/y@v1")
    assert made.checkpoint_inputs("own.tuned") == [made.paths.merged("own.tuned")]
    assert sorted(made.merged_inputs("own.tuned")) == sorted(tmp_path.iterdir())
    assert made.merged_inputs("own.x") == []
    # Another seed or size of its architecture is told by what it is made from.
    assert made.architecture_sources() == {"own": "org/base"}
    assert plan().architecture_sources()["llama"] == "zoo:llama/chat"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"base": "lora:org/x"}, "pairs.own.base: model source 'lora:org/x': expected"),
        ({"tuned": "lora:zoo:llama/chat"}, "pairs.own.tuned: adapter source 'zoo:llama/chat'"),
        ({"tuned": "lora:./no/such"}, "pairs.own.tuned: no adapter_config.json in 'no/such'"),
    ],
)
def test_a_mistake_in_an_adapted_pair_is_one_line(changes: dict[str, str], part: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(pairs=[pair(**changes)], studies=["rank_audit"]).check()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
