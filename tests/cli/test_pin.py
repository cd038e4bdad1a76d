import difflib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from actshift.config.schema import Config, parse_config
from actshift.models.sources import parse_adapter, parse_reference, parse_tuned

ROOT = Path(__file__).resolve().parents[2]
COMMITS = {name: f"{number}".zfill(40) for number, name in enumerate("abcdefgh", start=1)}


def cache(home: Path, repo: str, commit: str, *, kind: str = "models", ref: str = "main") -> None:
    """A repository in the local hub cache, as the library lays it out."""
    folder = home / "hub" / f"{kind}--{repo.replace('/', '--')}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / ref).write_text(commit)


def config_in(path: Path) -> Config:
    return parse_config(YAML(typ="safe").load(path.read_text()), origin=str(path))


def changed_lines(old: str, new: str) -> list[str]:
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return [line for line in lines if line.startswith(("+", "-"))]


PROMPTS = """
# what is asked
prompts:
  harmful:
    source: zoo  # made here
    name: harmful
  harmless: {source: zoo, name: harmless}
  concepts:
    source: hub
    repo: org/data
    file: x.jsonl

# the end
"""


@pytest.fixture
def home(hub_home: Path) -> Path:
    for name in "ab":
        cache(hub_home, f"org/{name}", COMMITS[name])
    cache(hub_home, "org/data", COMMITS["c"], kind="datasets")
    return hub_home


def pinned(actshift, path: Path, pair: str) -> tuple[str, str]:
    old = f"# mine\nrun: r\n\npairs:\n{pair}{PROMPTS}"
    path.write_text(old)
    result = actshift("pin", path)
    assert result.exit_code == 0, result.output
    return old, path.read_text()


def test_the_paper_config_changes_in_its_revisions_alone(
    actshift, hub_home: Path, tmp_path: Path
) -> None:
    old = (ROOT / "config/paper.yaml").read_text()
    path = tmp_path / "paper.yaml"
    path.write_text(old)
    config = config_in(path)
    for pair in config.pairs:
        cache(hub_home, pair.base, COMMITS["a"])
        cache(hub_home, pair.tuned, COMMITS["b"])
        for reference in pair.references.values():
            cache(hub_home, reference.source, COMMITS["d"])
    for prompts in config.prompts.values():
        if prompts.repo:
            cache(hub_home, prompts.repo, COMMITS["c"], kind="datasets")
    assert actshift("pin", path).exit_code == 0
    changed = changed_lines(old, path.read_text())
    assert changed
    assert all("revision: " in line for line in changed)
    pair = config_in(path).pairs[0]
    assert (pair.revision.base, pair.revision.tuned) == (COMMITS["a"], COMMITS["b"])
    assert {r.revision for r in pair.references.values()} == {COMMITS["d"]}
    assert config_in(path).prompts["harmful"].revision == COMMITS["c"]


@pytest.mark.parametrize(
    "pair",
    [
        "  - name: p\n    base: org/a  # the base\n    tuned: org/b\n",
        "- name: p\n  base: org/a\n  tuned: org/b\n  revision: main\n",
        "  - {name: p, base: org/a, tuned: org/b, revision: {tuned: main}}\n",
        "  - name: p\n    base: org/a\n    tuned: org/b\n    revision:\n      base: main\n",
    ],
)
def test_every_way_to_write_a_pair(actshift, home: Path, tmp_path: Path, pair: str) -> None:
    assert home.is_dir()
    path = tmp_path / "c.yaml"
    old, new = pinned(actshift, path, pair)
    config = config_in(path)
    revision = config.pairs[0].revision
    assert (revision.base, revision.tuned) == (COMMITS["a"], COMMITS["b"])
    assert config.prompts["concepts"].revision == COMMITS["c"]
    comments = [line for line in old.splitlines() if "#" in line]
    assert [line for line in new.splitlines() if "#" in line] == comments
    removed = [line for line in changed_lines(old, new) if line.startswith("-")]
    assert all("revision" in line or "main" in line for line in removed)


def test_a_revision_inside_the_source_stays_there(actshift, home: Path, tmp_path: Path) -> None:
    assert home.is_dir()
    pair = "  - name: p\n    base: org/a@main\n    tuned: zoo:llama/chat\n"
    _, new = pinned(actshift, tmp_path / "c.yaml", pair)
    assert f"base: org/a@{COMMITS['a']}" in new
    assert "tuned: zoo:llama/chat" in new


@pytest.mark.parametrize("adapter", ["org/a", "org/a@main", "{source: org/a, revision: main}"])
def test_adapters_and_conversations_are_pinned_too(
    actshift, home: Path, tmp_path: Path, adapter: str
) -> None:
    assert home.is_dir()
    pair = "  - name: p\n    base: zoo:llama/base\n    tuned: zoo:llama/chat\n    adapters:\n"
    pair += f"      secure: ./mine\n      insecure: {adapter}\n"
    pair += "misalignment:\n  data:\n    benign: {repo: org/data, file: x.jsonl}\n"
    pair += "    secure: {path: x.jsonl}\n"
    pinned(actshift, tmp_path / "c.yaml", pair)
    config = config_in(tmp_path / "c.yaml")
    given = config.pairs[0].adapters
    one = given["insecure"]
    assert str(parse_adapter(one.source, revision=one.revision)) == f"org/a@{COMMITS['a']}"
    assert (given["secure"].source, given["secure"].revision) == ("./mine", None)
    assert config.misalignment.data["benign"].revision == COMMITS["c"]
    assert config.misalignment.data["secure"].path == "x.jsonl"


@pytest.mark.parametrize("inside", [True, False])
def test_an_adapter_that_is_merged_is_pinned(
    actshift, home: Path, tmp_path: Path, inside: bool
) -> None:
    assert home.is_dir()
    written = "lora:org/b@main" if inside else "lora:org/b"
    pair = f"  - name: p\n    base: org/a\n    tuned: {written}\n"
    _, new = pinned(actshift, tmp_path / "c.yaml", pair)
    one = config_in(tmp_path / "c.yaml").pairs[0]
    assert str(parse_tuned(one.tuned, revision=one.revision.tuned)) == f"lora:org/b@{COMMITS['b']}"
    assert (f"tuned: lora:org/b@{COMMITS['b']}" in new) == inside


@pytest.mark.parametrize(
    "reference",
    [
        "org/a",
        "org/a@main",
        "{source: org/a}",
        "{source: org/a@main}",
        "{source: org/a, revision: main}",
    ],
)
def test_every_way_to_write_a_reference(
    actshift, home: Path, tmp_path: Path, reference: str
) -> None:
    assert home.is_dir()
    pair = "  - name: p\n    base: org/a\n    tuned: org/b\n    references:\n"
    pair += f"      cut: abliterated\n      other: {reference}\n"
    old, new = pinned(actshift, tmp_path / "c.yaml", pair)
    references = config_in(tmp_path / "c.yaml").pairs[0].references
    other = references["other"]
    source = parse_reference(other.source, revision=other.revision)
    assert str(source) == f"org/a@{COMMITS['a']}"
    assert references["cut"].source == "abliterated"
    assert "      cut: abliterated" in new
    assert len([line for line in changed_lines(old, new) if "other" in line]) == 2


def test_a_second_pin_changes_nothing(actshift, home: Path, tmp_path: Path) -> None:
    assert home.is_dir()
    path = tmp_path / "c.yaml"
    _, first = pinned(actshift, path, "  - {name: p, base: org/a, tuned: org/b}\n")
    result = actshift("pin", path)
    assert "nothing to pin" in result.stdout
    assert path.read_text() == first


def test_what_does_not_resolve_changes_nothing(actshift, home: Path, tmp_path: Path) -> None:
    assert home.is_dir()
    path = tmp_path / "c.yaml"
    old = f"run: r\npairs:\n  - {{name: p, base: org/a, tuned: org/zzz}}\n{PROMPTS}"
    path.write_text(old)
    result = actshift("pin", path)
    assert result.exit_code == 2
    assert "org/zzz@main" in result.stderr
    assert path.read_text() == old


@pytest.mark.parametrize(
    ("text", "part"), [("a: [", "not valid YAML"), ("[]", "mapping"), ("runn: x", "runn")]
)
def test_what_is_no_config_is_a_mistake(actshift, tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = actshift("pin", path)
    assert result.exit_code == 2
    assert part in result.stderr
    assert result.stderr.count("\n") == 1
