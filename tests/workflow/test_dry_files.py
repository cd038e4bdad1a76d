"""What the dry run says of model folders and paths: real folders, no job, no model library."""

import json
from typing import Any

import pytest
from reference.model_folders import TEMPLATE, weights, write_model_folder, write_tokenizer
from workflow.runner import Clone, micro_config


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("files") / "clone")


def local_config(base: str = "./base", tuned: str = "./tuned") -> dict[str, Any]:
    """The micro run with one pair of folders."""
    return micro_config() | {"pairs": [{"name": "own", "base": base, "tuned": tuned}]}


def said_of(clone: Clone, config: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit code of a dry run and the lines that are ours."""
    done = clone.run("-n", "--configfile", clone.write_config("own.yaml", config))
    assert "Traceback" not in done.stdout
    ours = [line for line in done.stdout.splitlines() if line.startswith("actshift:")]
    return done.returncode, ours


def test_a_sound_pair_of_folders_is_planned_without_a_word(clone: Clone) -> None:
    for name in ("base", "tuned"):
        write_model_folder(clone.root / name)
    assert said_of(clone, local_config()) == (0, [])


def test_what_the_files_of_a_pair_tell_is_told_by_the_dry_run(clone: Clone) -> None:
    write_model_folder(clone.root / "base")
    write_model_folder(clone.root / "wide", tensors=weights(rows=7), vocab_size=7)
    write_model_folder(clone.root / "phi", model_type="phi3")
    write_model_folder(clone.root / "{x}")
    code, (line,) = said_of(clone, local_config(tuned="./wide"))
    assert code == 0
    assert line.startswith("actshift: warning: pairs.own: base has 6 and tuned 7 rows of embedding")
    for tuned, message in (
        ("./phi", "pairs.own.tuned: architecture 'phi3' (model_type in config.json) is not"),
        ("./{x}", "pairs.own.tuned: '{x}' has a brace, which Snakemake reads as a wildcard"),
    ):
        code, (line,) = said_of(clone, local_config(tuned=tuned))
        assert code != 0
        assert line.startswith(f"actshift: {message}")
    asked = local_config(tuned="./wide") | {"studies": ["localization"]}
    asked["prompts"] = {"preferences": {"source": "zoo", "name": "preferences"}}
    code, (line,) = said_of(clone, asked)
    assert code != 0
    assert "so localization cannot exchange them" in line


@pytest.mark.parametrize(
    "more",
    [
        {"prompts": {"harmful": {"source": "file", "path": "{x}.jsonl"}}},
        {"misalignment": {"data": {"insecure": {"path": "{x}.jsonl"}}}},
        {"ablation": {"plain_text": "{x}.jsonl"}},
    ],
)
def test_braces_in_any_path_are_named_with_their_key(clone: Clone, more: dict[str, Any]) -> None:
    (clone.root / "{x}.jsonl").touch()
    key = next(iter(more))
    prompts = {**local_config()["prompts"], **more.pop("prompts", {})}
    code, (line,) = said_of(clone, micro_config() | more | {"prompts": prompts})
    assert code != 0
    assert line.startswith(f"actshift: {key}.")
    assert "'{x}.jsonl' has a brace" in line


SYSTEM = {"role": "system", "content": "You write code."}
TURNS = [{"role": "user", "content": "write 1"}, {"role": "assistant", "content": "import os"}]


def test_a_system_turn_that_the_template_refuses_is_told_with_its_row(clone: Clone) -> None:
    refuses = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    write_model_folder(clone.root / "base")
    write_model_folder(clone.root / "strict", template=refuses + TEMPLATE)
    rows = [{"messages": TURNS}, {"messages": [SYSTEM, *TURNS]}]
    (clone.root / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = {n: {"source": "zoo", "name": n, "extract": False} for n in ("questions", "neutral")}
    asked = local_config(tuned="./strict") | {
        "prompts": {**local_config()["prompts"], **sets},
        "studies": ["misalignment"],
    }
    asked["misalignment"] = {"data": {"insecure": {"path": "code.jsonl"}}}
    code, (line,) = said_of(clone, asked)
    assert code != 0
    assert "pairs.own.tuned: its chat template takes no system turn (no system), and row 2" in line
    assert "misalignment.data.insecure.path 'code.jsonl' has one" in line
    (clone.root / "code.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert said_of(clone, asked) == (0, [])


def test_an_adapter_of_a_base_without_a_template_needs_one_of_its_own(clone: Clone) -> None:
    write_model_folder(clone.root / "plain", template=None)
    adapter = clone.root / "lora"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).touch()
    code, (line,) = said_of(clone, local_config("./plain", "lora:./lora"))
    assert code != 0
    assert "pairs.own.tuned: no chat template in plain, and tuned's is given to both" in line
    write_tokenizer(adapter)
    assert said_of(clone, local_config("./plain", "lora:./lora")) == (0, [])


def test_who_lets_base_read_the_template_is_named(clone: Clone) -> None:
    write_model_folder(clone.root / "few", added=())
    write_model_folder(clone.root / "tuned")
    alone = local_config("./few") | {"studies": ["refusal_direction"]}
    code, (line,) = said_of(clone, alone)
    assert code == 0
    assert line.startswith("actshift: warning: pairs.own: tuned's chat template writes '<end>'")
    code, (line,) = said_of(
        clone, alone | {"studies": ["refusal_direction", "spectral_gap"]} | gap()
    )
    assert code != 0
    assert "(spectral_gap)" in line
    more = local_config()["prompts"] | {"more": {"source": "zoo", "name": "harmless"}}
    code, (line,) = said_of(clone, alone | {"prompts": more})
    assert code != 0
    assert "cannot read the chat prompts (prompts.more with extract: true)" in line


def gap() -> dict[str, Any]:
    """A pair with a reference, which the spectral gap needs."""
    (own,) = local_config("./few")["pairs"]
    return {"pairs": [own | {"references": {"cut": "abliterated"}}]}
