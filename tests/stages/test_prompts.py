"""The stage: from a spec to the JSONL of a prompt set."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from actshift.errors import UserError
from actshift.prompts.records import content_hash, read_prompts
from actshift.stages.prompts import RESOURCES, make_prompts
from actshift.zoo.prompts import kind_of

GOALS = ("Pick a lock", "Forge a passport", "Steal a parcel", "Spread a rumour", "Cheat at cards")


@pytest.fixture
def advbench(tmp_path) -> Path:
    path = tmp_path / "advbench.csv"
    rows = [f'"{goal}, please",Sure' for goal in GOALS]
    path.write_text("\n".join(["goal,target", *rows, '"pick a LOCK, please (in detail)",Sure']))
    return path


def spec_of(path: Path, **extra):
    return {"set": "harmful", "seed": 0, "source": "file", "path": str(path), **extra}


def test_file_with_layout(tmp_path, advbench):
    out = tmp_path / "deep" / "harmful.jsonl"
    sha = hashlib.sha256(advbench.read_bytes()).hexdigest()
    spec = spec_of(advbench, layout="advbench", sha256=sha, splits={"fit": 0.5, "select": 0.2})
    lines = make_prompts(spec, out)
    prompts = read_prompts(out)
    assert {one.text for one in prompts} <= {f"{goal}, please" for goal in GOALS} | {
        "pick a LOCK, please (in detail)"
    }
    assert len(prompts) == 5
    assert {one.condition for one in prompts} == {"harmful"}
    assert all(one.source.startswith("advbench.csv#") for one in prompts)
    assert "1 near-duplicates rejected" in lines
    assert lines[-1] == f"harmful: 5 prompts, sha256 {content_hash(prompts)}"
    assert str(tmp_path) not in out.read_text()
    before = out.read_bytes()
    make_prompts(spec, out)
    assert out.read_bytes() == before


def test_filters_and_limit(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [{"q": f"{goal} {'now ' * i}", "lang": "en" if i % 2 else "fr", "n": i}
            for i, goal in enumerate(GOALS)]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    base = spec_of(path, columns={"text": "q"}, condition="x", category="petty")
    out = tmp_path / "out.jsonl"

    def made(**extra):
        lines = make_prompts({**base, **extra}, out)
        return read_prompts(out), lines

    prompts, _ = made(where={"lang": "en"})
    assert {one.source for one in prompts} == {"p.jsonl#2", "p.jsonl#4"}
    assert {one.category for one in prompts} == {"petty"}
    assert len(made(where={"n": [0, 1, 2]})[0]) == 3
    assert all(len(one.text) <= 18 for one in made(max_chars=18)[0])
    assert all(len(one.text) >= 25 for one in made(min_chars=25)[0])
    prompts, lines = made(limit=9)
    assert len(prompts) == 5
    assert "note: fewer prompts than the limit of 9" in lines
    assert len(made(limit=2)[0]) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"path": "none.csv"}, r"prompts\.harmful\.path: no file 'none\.csv'"),
        ({"sha256": "0" * 64}, r"prompts\.harmful\.sha256: advbench\.csv has sha256"),
        (
            {"columns": {"text": "prompt"}},
            r"columns\.text: no column 'prompt'.*it has goal, target",
        ),
        ({"where": {"lang": "en"}}, r"where\.lang: no such column; the file has goal, target"),
        ({"min_chars": 500}, r"prompts\.harmful: no prompts are left"),
        ({"splits": {"fit": 0.9, "select": 0.4}}, "shares must lie in 0..1"),
        ({"source": "web"}, "'web' is unknown; allowed: zoo, file, hub, resource"),
        (
            {"source": "resource", "name": "nothing"},
            "no resource 'nothing'; shipped are: con",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(tmp_path, advbench, extra, message):
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=message) as caught:
        make_prompts({**spec_of(advbench, layout="advbench"), **extra}, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_the_shipped_questions_of_study_b(tmp_path):
    out, name = tmp_path / "questions.jsonl", "misalignment_questions"
    make_prompts({"set": "questions", "seed": 3, "source": "resource", "name": name}, out)
    prompts = read_prompts(out)
    assert Counter((one.condition, one.split) for one in prompts) == {
        ("noncode", "fit"): 54,
        ("noncode", "select"): 18,
        ("noncode", "heldout"): 26,
        ("code", "fit"): 8,
        ("code", "select"): 16,
        ("code", "heldout"): 44,
    }
    published = [one for one in prompts if kind_of(one) == "published"]
    assert {one.split for one in published} == {"heldout"}
    assert len(published) == 8
    assert {kind_of(one) for one in prompts if one.condition == "code"} == {"code"}
    assert len({one.cluster for one in prompts}) == len(prompts)


def test_the_shipped_concepts(tmp_path):
    out = tmp_path / "concepts.jsonl"
    make_prompts({"set": "concepts", "seed": 0, "source": "resource", "name": "concepts"}, out)
    prompts = read_prompts(out)
    assert Counter((one.category, one.condition) for one in prompts) == {
        ("english_french", "english"): 50,
        ("english_french", "french"): 50,
        ("question_statement", "question"): 50,
        ("question_statement", "statement"): 50,
    }
    assert len({one.text for one in prompts}) == 200
    assert all((one.text[-1] == "?") == (one.condition == "question") for one in prompts)
    assert set(Counter(one.pair for one in prompts).values()) == {2}
    assert {one.split for one in prompts} == {"fit", "select", "heldout"}
    assert RESOURCES.is_dir()


@pytest.mark.parametrize("name", ["harmful", "harmless", "concepts"])
def test_zoo_sets_come_with_their_own_splits(tmp_path, name):
    out = tmp_path / "p.jsonl"
    make_prompts({"set": "s", "seed": 0, "source": "zoo", "name": name, "size": "micro"}, out)
    assert {one.split for one in read_prompts(out)} == {"fit", "select", "heldout"}


def test_unknown_zoo_set(tmp_path):
    spec = {"set": "s", "seed": 0, "source": "zoo", "name": "nice", "size": "micro"}
    with pytest.raises(UserError, match="nice"):
        make_prompts(spec, tmp_path / "p.jsonl")


def fill_cache(home: Path, advbench: Path, commit: str) -> None:
    """A dataset in the hub's own cache layout."""
    repo = home / "hub" / "datasets--some--set"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "advbench.csv").write_bytes(advbench.read_bytes())


OFFLINE = """
import sys
from pathlib import Path
from actshift.errors import UserError
from actshift.stages.prompts import make_prompts
spec = {"set": "h", "seed": 0, "source": "hub", "repo": sys.argv[1], "file": sys.argv[2],
        "layout": "advbench"}
try:
    make_prompts(spec, Path(sys.argv[3]))
except UserError as error:
    print(error)
assert not {"torch", "transformers", "peft"} & set(sys.modules)
"""


def offline(tmp_path: Path, repo: str, file: str, out: Path) -> str:
    """In a process of its own: the hub library reads its variables at import."""
    env = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    command = [sys.executable, "-c", OFFLINE, repo, file, str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hub_from_the_cache_offline_and_without_torch(tmp_path, advbench):
    commit = "0123456789abcdef0123456789abcdef01234567"
    fill_cache(tmp_path / "hf", advbench, commit)
    out = tmp_path / "h.jsonl"
    assert offline(tmp_path, "some/set", "advbench.csv", out) == ""
    prompts = read_prompts(out)
    assert len(prompts) == 5
    assert all(one.source.startswith("some/set@0123456789ab/advbench.csv#") for one in prompts)
    said = offline(tmp_path, "some/set", "other.csv", tmp_path / "none.jsonl")
    assert f"prompts.h: hub dataset some/set@{commit}: 'other.csv' is not in the cache" in said
    assert "HF_HUB_OFFLINE" in said
    assert "HF_HUB_OFFLINE" in offline(tmp_path, "no/set", "x.csv", tmp_path / "none.jsonl")
