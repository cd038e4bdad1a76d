import re
import subprocess
import sys
from pathlib import Path

import pytest

from actshift import codehash

STAGES = sorted(
    f"stages.{path.stem}"
    for path in (codehash.PACKAGE / "stages").glob("*.py")
    if path.stem != "__init__"
)
RULES = {
    head.split(":", 1)[0]: head
    for path in sorted((codehash.PACKAGE.parent / "rules").glob("*.smk"))
    for head in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]
}
# What a script may use besides: threads and the log, where the cache lies, and a hint at streams
# that land in the cache under the hash of their own content. None of them changes a byte.
OUTSIDE = {"job", "paths", "stages.streams"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three modules, stages.run -> maths.rank -> vocab, and a script a stage."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("run", "other"):
        (scripts / f"{name}.py").write_text(f"from actshift.stages.{name} import run\nrun(eps=1)\n")
    monkeypatch.setattr(codehash, "SCRIPTS", scripts)
    files = {
        "__init__.py": "",
        "vocab.py": "EPS = 0.05\n",
        "maths/__init__.py": "",
        "maths/rank.py": "from actshift.vocab import EPS\n\ndef rank():\n    return EPS\n",
        "stages/__init__.py": "",
        "stages/run.py": "def run():\n    from actshift.maths import rank\n    rank.rank()\n",
        "stages/other.py": "X = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(codehash, "PACKAGE", tmp_path)
    return tmp_path


def fresh_hash() -> str:
    for cached in (codehash.closure, codehash._imports, codehash._dump):
        cached.cache_clear()
    return codehash.code("stages.run")


@pytest.fixture(autouse=True)
def _clear_after():
    yield
    for cached in (codehash.closure, codehash._imports, codehash._dump):
        cached.cache_clear()


def test_an_edit_two_imports_away_changes_the_hash(package: Path) -> None:
    before = fresh_hash()
    (package / "vocab.py").write_text("EPS = 0.10\n")
    assert fresh_hash() != before


def test_comments_docstrings_and_layout_do_not(package: Path) -> None:
    before = fresh_hash()
    (package / "maths/rank.py").write_text(
        '"""A docstring."""\nfrom actshift.vocab import EPS  # why\n\n\n'
        'def rank():\n    """Say."""\n    # because\n    return (EPS)\n'
    )
    assert fresh_hash() == before


def test_code_that_the_stage_cannot_reach_does_not(package: Path) -> None:
    before = fresh_hash()
    (package / "stages/other.py").write_text("X = 2\n")
    assert fresh_hash() == before


def test_an_edit_to_the_calling_script_alone_changes_it(package: Path) -> None:
    before = fresh_hash()
    mine, other = (package / "scripts" / f"{name}.py" for name in ("run", "other"))
    other.write_text(other.read_text().replace("eps=1", "eps=2"))
    mine.write_text(mine.read_text() + "# a remark\n")
    assert fresh_hash() == before
    mine.write_text(mine.read_text().replace("eps=1", "eps=2"))
    assert fresh_hash() != before


@pytest.mark.parametrize("stage", STAGES)
def test_closure_holds_what_importing_the_stage_loads(stage: str) -> None:
    program = (
        f"import sys, actshift.{stage}\n"
        "print(*(n.removeprefix('actshift.') for n in sys.modules if n.startswith('actshift.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    inits = codehash.PACKAGE.rglob("*/__init__.py")
    packages = {".".join(path.parent.relative_to(codehash.PACKAGE).parts) for path in inits}
    loaded = set(done.stdout.split()) - packages
    assert loaded <= codehash.closure(stage)


@pytest.mark.parametrize("rule", RULES)
def test_all_that_a_script_imports_is_within_the_hash_of_its_rule(rule: str) -> None:
    (named,) = re.findall(r"code=code\(([^)]*)\)", RULES[rule])
    (script,) = re.findall(r"\.\./scripts/(\w+\.py)", RULES[rule])
    # The general script is told its stage by the rule.
    told = re.findall(r'stage="actshift\.([^:"]+):', RULES[rule])
    stages = re.findall(r'"([^"]+)"', named)
    within = set().union(*(codehash.closure(stage) for stage in stages))
    imported = {*codehash._imports(codehash.SCRIPTS / script), *told}
    assert set(stages) <= imported
    assert imported - within <= OUTSIDE


def test_a_new_key_of_the_configuration_repeats_no_job() -> None:
    """Extraction and all else take their settings from the rule, not from the configuration."""
    stages = {stage for rule in RULES.values() for stage in re.findall(r'code\("([^"]+)"', rule)}
    assert len(stages) >= 10
    assert {s for s in stages if {"config", "plan"} & codehash.closure(s)} == set()
