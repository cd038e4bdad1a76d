"""docs/how-to/add-a-study.md, followed to the letter in a copy of the tree and run to the page."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workflow.runner import ROOT, Clone, micro_config

from actshift.io.tables import read_table

EXAMPLE = Path(__file__).parent / "example_study"
PAGE = ROOT / "docs" / "how-to" / "add-a-study.md"
#: A file of the page: its path in bold, then a block of code.
SHOWN = re.compile(r"^\*\*`([^`]+)`\*\*\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The two lines of the registry, and what each stands behind.
REGISTERED = (
    (
        "from actshift.studies.contract import",
        "from actshift.studies.example.study import STUDY as",
    ),
    ("_STUDIES = (", "    EXAMPLE,"),
)


def files() -> dict[str, str]:
    """The files of the example by their path in the repository."""
    paths = (path for path in EXAMPLE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(EXAMPLE).as_posix(): path.read_text() for path in paths}


def with_example(root: Path) -> Clone:
    """A copy of the tree with the files of the page and two lines more."""
    clone = Clone.make(root)
    for name, text in files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    registry = root / "workflow" / "actshift" / "studies" / "registry.py"
    lines = registry.read_text().splitlines()
    for behind, start in REGISTERED:
        place = next(number for number, line in enumerate(lines) if line.startswith(behind))
        (line,) = re.findall(rf"^{re.escape(start)}.*$", PAGE.read_text(), re.MULTILINE)
        lines.insert(place + 1, line)
    registry.write_text("\n".join(lines) + "\n")
    return clone


def test_the_page_shows_every_file_of_the_example() -> None:
    assert dict(SHOWN.findall(PAGE.read_text())) == files()
    assert len(files()) <= 10


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The run of the example on one pair of the micro zoo."""
    made = with_example(tmp_path_factory.mktemp("example") / "clone")
    config = micro_config() | {"studies": ["example"], "only": "llama"}
    config["prompts"] = {name: config["prompts"][name] for name in ("harmful", "harmless")}
    done = made.run("--configfile", made.write_config("example.yaml", config))
    assert done.returncode == 0, done.stdout[-8000:]
    return made


def test_the_study_runs_to_tables_figure_claim_and_section(clone: Clone) -> None:
    results = clone.root / "results" / "micro"
    norms = read_table(results / "tables/example/example_norm.csv")
    assert norms["pair"].unique().tolist() == ["llama"]
    assert (norms["norm_low"] > 0).all()
    summary = read_table(results / "tables/example/example_summary.csv")
    assert summary["relative"].tolist() == [norms["relative"].max()]
    assert (results / "figures/example/example_norm.svg").stat().st_size > 1000
    claims = read_table(results / "tables/claims.csv").set_index("claim")
    assert claims.loc["tuning-moves-the-stream", "verdict"] == "holds"
    page = (results / "report.html").read_text(encoding="utf-8")
    assert 'id="figure-example_norm"' in page
    assert "Norm of the shift" in page
    assert "Tuning moves the residual stream on harmful prompts." in page


def test_a_second_run_does_nothing(clone: Clone) -> None:
    assert set(clone.planned("--configfile", "example.yaml")) <= {"all"}


def test_the_test_of_the_study_passes(tmp_path: Path) -> None:
    clone = with_example(tmp_path / "clone")
    shutil.copy2(ROOT / "pyproject.toml", clone.root)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/studies"]
    done = subprocess.run(
        command, cwd=clone.root, env=clone.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
