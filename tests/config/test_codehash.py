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
    for head in re.split(r"^ *rule ?(?=\w*:$)", path.read_text(), flags=re.MULTILINE)[1:]
    if not head.startswith(":")
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
    for cached in (codehash.closure, codehash._facts):
        cached.cache_clear()
    return codehash.code("stages.run")


@pytest.fixture(autouse=True)
def _clear_after():
    yield
    for cached in (codehash.closure, codehash._facts):
        cached.cache_clear()


def test_an_edit_two_imports_away_changes_the_hash(package: Path) -> None:
    before = fresh_hash()
    (package / "vocab.py").write_text("EPS = 0.10\n")
    assert fresh_hash() != before


def test_what_is_kept_of_a_file_is_not_taken_for_another_content(package: Path) -> None:
    rank = package / "maths/rank.py"
    kept = rank.parent / "__pycache__" / "rank.code.json"
    before = fresh_hash()
    assert kept.is_file()
    assert fresh_hash() == before
    kept.write_text("{")
    assert fresh_hash() == before
    rank.write_text(rank.read_text().replace("return EPS", "return 1.0"))
    after = fresh_hash()
    assert after != before
    # The same time and size, kept by another Python.
    kept.write_text(kept.read_text().replace(sys.version.split()[0], "3.99.0"))
    assert fresh_hash() == after


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


DECLARED = '''
class Ranks(Section):
    draws: int = Field(default=5, description="random draws")

FIGURES = (Figure("rank", ("rank",), "actshift.studies.rank.figures:rank"),)
TABLES = (
    table(
        "rank",
        "a pair and layer",
        """
        pair, layer
        rank_eps | directions | smallest number that holds 95 % of the energy
        """,
        shared=words("layer | | decoder block"),
    ),
)
STUDY = Study(name="rank", title="Rank", about="How many?", tables=TABLES, figures=FIGURES)
'''


@pytest.fixture
def study(package: Path) -> Path:
    """The declaration of a study whose settings the stage takes; a stage that reads them all."""
    file = package / "studies" / "rank" / "study.py"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARED)
    take = "from actshift.studies.rank.study import Ranks\n"
    (package / "stages/run.py").write_text(take)
    (package / "studies/contract.py").write_text("")
    (package / "studies/registry.py").write_text("from actshift.studies.rank.study import STUDY\n")
    (package / "stages/other.py").write_text("from actshift.studies.registry import STUDY\n")
    return file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"a pair and layer"', '"a pair, a layer"'),
        ("smallest number that holds", "number of directions that hold"),
        ("| directions |", "| |"),
        ("decoder block", "block"),
        ('"random draws"', '"draws at random"'),
        ('title="Rank"', 'title="Ranks"'),
        ('about="How many?"', 'about="How many are there?"'),
        ("rank.figures:rank", "rank.figures:ranks"),
        (", figures=FIGURES", ""),
        ("FIGURES = (", 'FIGURES = (Figure("bars", (), ""), '),
    ],
)
def test_wording_of_a_study_counts_for_figures_and_page_alone(study: Path, old: str, new: str):
    before = fresh_hash(), codehash.code("stages.other")
    assert old in DECLARED
    study.write_text(DECLARED.replace(old, new))
    assert fresh_hash() == before[0]
    assert codehash.code("stages.other") != before[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default=5", "default=6"),
        ("pair, layer", "pair, block"),
        ("rank_eps |", "rank |"),
        ('"rank",\n        "a pair', '"ranks",\n        "a pair'),
        ("tables=TABLES", "tables=()"),
    ],
)
def test_settings_and_columns_of_a_study_count_for_its_stages(study: Path, old: str, new: str):
    before = fresh_hash()
    assert old in DECLARED
    study.write_text(DECLARED.replace(old, new))
    assert fresh_hash() != before


def test_a_script_that_finds_its_stage_by_name_counts_for_every_study(study: Path) -> None:
    scripts = study.parents[2] / "scripts"
    (scripts / "general.py").write_text("from actshift.studies.contract import named\nnamed('a')\n")
    before = fresh_hash(), codehash.code("studies.rank.study")
    (scripts / "general.py").write_text("from actshift.studies.contract import named\nnamed('b')\n")
    after = fresh_hash(), codehash.code("studies.rank.study")
    assert after[0] == before[0]
    assert after[1] != before[1]


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
    # The rule names the stage that a general script calls.
    told = re.findall(r'(?:stage|judge)="actshift\.([^:"]+):', RULES[rule])
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
