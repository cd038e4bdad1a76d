import ast
import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import UserError
from actshift.models import sources
from actshift.models.on_disk import cached_snapshot, hub_cache, shape_of
from actshift.models.sources import (
    MODEL_TYPES,
    AbliteratedSource,
    HubSource,
    LocalSource,
    LoraSource,
    ZooSource,
    parse_reference,
    parse_source,
    parse_tuned,
    quantisation_of,
    read_model_config,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_zoo_source_with_and_without_seed() -> None:
    assert parse_source("zoo:llama/chat") == ZooSource("llama", "chat", 0)
    assert parse_source("zoo:gemma/base@3") == ZooSource("gemma", "base", 3)


def test_only_a_reference_may_be_made_from_the_pair_itself() -> None:
    assert parse_reference("abliterated") == AbliteratedSource()
    assert str(AbliteratedSource()) == "abliterated"
    assert shape_of(AbliteratedSource()) is None
    assert parse_reference("org/name", revision="v1") == HubSource("org/name", "v1")
    for call in (
        lambda: parse_source("abliterated"),
        lambda: parse_reference("abliterated", revision="x"),
    ):
        with pytest.raises(UserError, match="'abliterated'"):
            call()


@pytest.mark.parametrize("text", ["./model", "../model", "/data/model", "~/model", "."])
def test_a_path_is_a_local_source(text: str) -> None:
    source = parse_source(text)
    assert isinstance(source, LocalSource)
    assert str(source) == text
    assert "~" not in str(source.folder)


def test_hub_source_takes_its_revision_from_either_place() -> None:
    assert parse_source("org/name") == HubSource("org/name", None)
    assert parse_source("org/name@v1.0") == HubSource("org/name", "v1.0")
    assert parse_source("org/name@refs/pr/1") == HubSource("org/name", "refs/pr/1")
    assert parse_source("org/name", revision="main") == HubSource("org/name", "main")
    assert parse_source("org/name@main", revision="main") == HubSource("org/name", "main")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("zoo:lama/base", "llama, gemma, qwen, ministral"),
        ("zoo:llama/tuned", "base, chat"),
        ("zoo:llama", "zoo:<family>/<variant>"),
        ("zoo:llama/base@", "whole number"),
        ("zoo:llama/base@-1", "whole number"),
        ("zoo:llama/base@²", "whole number"),
        ("gpt2", "a folder starts with ./"),
        ("https://example.org/org/name", "org/name part of the address"),
        ("a/b/c", "expected"),
        ("org/na me", "expected"),
        ("-org/name", "expected"),
        ("org/..", "expected"),
        ("org/name@", "expected"),
        ("", "expected"),
    ],
)
def test_bad_syntax_says_what_is_allowed(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_source(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_dot_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"write \./a/b/c"):
        parse_source("a/b/c")


def test_two_revisions_are_refused() -> None:
    with pytest.raises(UserError, match="keep one"):
        parse_source("org/name@v1", revision="v2")


names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)


@given(org=names, name=names, revision=st.none() | names)
def test_hub_sources_round_trip(org: str, name: str, revision: str | None) -> None:
    source = HubSource(f"{org}/{name}", revision)
    assert parse_source(str(source)) == source


@given(seed=st.integers(0, 10**6))
def test_zoo_sources_round_trip(seed: int) -> None:
    source = ZooSource("qwen", "base", seed)
    assert parse_source(str(source)) == source


def _save_config(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_shape_of_a_local_folder(tmp_path: Path) -> None:
    plain = _save_config(tmp_path / "a", num_hidden_layers=6, hidden_size=64)
    nested = _save_config(tmp_path / "b", text_config={"n_layer": 2, "n_embd": 8})
    assert shape_of(parse_source(str(plain))) == (6, 64)
    assert shape_of(parse_source(str(nested))) == (2, 8)


def test_shape_of_what_is_not_on_this_disk_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert shape_of(ZooSource("llama", "base")) is None
    assert shape_of(HubSource("org/name")) is None


def test_shape_of_a_cached_hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repo = tmp_path / "hub/models--org--name"
    _save_config(repo / "snapshots" / COMMIT, num_hidden_layers=3, hidden_size=16)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    assert shape_of(HubSource("org/name")) == (3, 16)
    assert shape_of(HubSource("org/name", COMMIT)) == (3, 16)
    assert shape_of(HubSource("org/name", "other")) is None
    assert cached_snapshot("org/name") == repo / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("text", "part"), [("{", "not valid JSON"), ("[]", "no JSON object"), ("{}", "num_hidden")]
)
def test_a_broken_config_json_is_named(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=part):
        shape_of(parse_source(str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "FP8"}}, "fp8"),
        ({"quantization_config": {"load_in_4bit": True}}, "unknown"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
        ({"text_config": {}, "quantization_config": {"quant_method": "awq"}}, "awq"),
    ],
)
def test_quantisation_is_read_at_either_level(config: dict[str, object], method: str) -> None:
    assert quantisation_of(config) == method


def test_a_gguf_file_or_folder_is_called_that(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0")
    for named in (file, tmp_path):
        with pytest.raises(UserError, match=r"m\.gguf is a GGUF file, which is not read: take"):
            read_model_config(named)


def test_a_missing_folder_or_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_model_config(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_model_config(tmp_path)


_THEIRS = """
import importlib, json, os, sys
from huggingface_hub import constants
for case in json.loads(sys.argv[1]):
    os.environ.update(case)
    importlib.reload(constants)
    print(constants.HF_HUB_CACHE)
"""


def test_hub_cache_follows_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each case is stronger than the one before it, so they may pile up in one environment.
    cases = [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "~/h"},
        {"HUGGINGFACE_HUB_CACHE": "~/g"},
        {"HF_HUB_CACHE": "$HOME/c"},
    ]
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    theirs = subprocess.run(
        [sys.executable, "-c", _THEIRS, json.dumps(cases)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = []
    for case in cases:
        for name, value in case.items():
            monkeypatch.setenv(name, value)
        ours.append(str(hub_cache()))
    assert ours == theirs.stdout.split()


def test_supported_architectures_agree_with_the_families_table() -> None:
    # Read, not imported: importing the table loads torch and transformers.
    table = Path(sources.__file__).with_name("families.py").read_text()
    calls = (node for node in ast.walk(ast.parse(table)) if isinstance(node, ast.Call))
    rows = [call.args[0] for call in calls if getattr(call.func, "id", "") == "Family"]
    assert MODEL_TYPES == tuple(row.value for row in rows if isinstance(row, ast.Constant))


def test_parsing_sources_imports_no_heavy_library() -> None:
    code = (
        "import sys; from actshift.models.sources import parse_source; "
        "print({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("text", ["lora:./x", "lora:org/name", "lora:org/name@v1"])
def test_an_adapter_of_the_base_is_spelled_as_it_was(text: str) -> None:
    source = parse_tuned(text)
    assert isinstance(source, LoraSource)
    assert str(source) == text
    assert parse_reference(text) == source
    assert shape_of(source) is None
    with pytest.raises(UserError, match="expected"):
        parse_source(text)


def test_an_adapter_takes_the_revision_of_its_pair() -> None:
    assert str(parse_tuned("lora:org/name", revision="v2")) == "lora:org/name@v2"
    with pytest.raises(UserError, match="adapter source 'zoo:llama/chat'"):
        parse_tuned("lora:zoo:llama/chat")
