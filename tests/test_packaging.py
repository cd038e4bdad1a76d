"""The files around the code agree with each other: locks, citation, changelog, decisions."""

import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from actshift import __version__
from actshift.maths.directions import naive_shift

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def asked_for() -> list[str]:
    """Return the name of every dependency in pyproject.toml, run and dev."""
    groups = PROJECT["dependency-groups"].values()
    lists = [PROJECT["project"]["dependencies"], *groups]
    return [Requirement(text).name for some in lists for text in some]


def load_yaml(path: str) -> dict:
    return YAML(typ="safe").load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_environments_follow_from_pyproject(lock: ModuleType) -> None:
    assert lock.problems() == []


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (("numpy>=2.2", "numpy>=99"), "numpy"),
        (('"tqdm>=4.67",', '"tqdm>=4.67", "polars",'), "polars is in pyproject.toml and not in"),
        (('"xarray>=2025.6",', ""), "xarray is no longer asked for"),
        (("torch==2.13.0", "torch==2.12.0"), "torch"),
    ],
)
def test_drift_is_found(
    lock: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    edit: tuple[str, str],
    complaint: str,
) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert edit[0] in text
    (tmp_path / "pyproject.toml").write_text(text.replace(*edit))
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    assert complaint in "\n".join(lock.problems())


@pytest.mark.parametrize("name", ["cpu.lock", "dev.lock", "gpu.lock", "uv.lock"])
def test_every_pin_has_a_hash(lock: ModuleType, name: str) -> None:
    for package, block in lock.blocks((ROOT / "envs" / name).read_text()):
        assert "--hash=sha256:" in block, package


def test_cpu_lock_leaves_torch_and_its_cuda_libraries_out(lock: ModuleType) -> None:
    names = lock.names((ROOT / "envs" / "cpu.lock").read_text())
    assert not [n for n in names if n in {"torch", "triton"} or n.startswith(("nvidia", "cuda"))]
    needs = importlib.metadata.requires("torch") or []
    plain = {Requirement(n).name for n in needs if "extra ==" not in n and "linux" not in n}
    assert {lock.canonicalize_name(n) for n in plain} <= names


def test_setup_can_build_the_project_from_the_lock(lock: ModuleType) -> None:
    """The editable install runs without build isolation, so the run lock holds the build tool."""
    build = PROJECT["build-system"]["requires"]
    assert lock.mismatches("cpu.lock", build, (ROOT / "envs" / "cpu.lock").read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "envs").iterdir()), ids=lambda p: p.name)
def test_environments_name_no_host_and_no_folder(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"https?://|file:|--(extra-)?index-url|find-links|(^|\s)/\w", text)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_environments_hold_the_run_set(name: str) -> None:
    environment = load_yaml(f"envs/{name}.yaml")
    *conda, pip = environment["dependencies"]
    assert conda == ["python =3.11", "pip"]
    given = {Requirement(text).name for text in pip["pip"]}
    wanted = {Requirement(t).name.replace(".", "-") for t in PROJECT["project"]["dependencies"]}
    assert wanted <= given


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE))
    assert rows == set(asked_for())


def test_versions_agree() -> None:
    citation = load_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    heading = rf"^## {re.escape(__version__)} \({citation['date-released']}\)$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)


def test_shapes_are_checked_at_test_time() -> None:
    """Without --jaxtyping-packages a wrong shape passes silently; this is the proof it is on."""
    good, wrong = np.zeros((3, 4)), np.zeros((3, 4, 1))
    naive_shift(good, good)
    with pytest.raises(TypeCheckError, match="base_raw"):
        naive_shift(good, wrong)
