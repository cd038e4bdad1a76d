"""What a page's numbers came from: settings, versions, commit, checkpoints, file hashes."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from actshift.io.hashing import hash_file
from actshift.io.manifest import read_manifest

#: Packages that decide numbers or drawings; the ones a machine lacks are left out.
PACKAGES = (
    "actshift", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas",
    "scikit-learn", "zarr", "matplotlib", "snakemake",
)  # fmt: skip
_FACTS = ("source", "revision", "family", "n_layers", "d_model", "dtype", "weights_hash")


def versions() -> dict[str, str]:
    """Python and the installed packages that matter."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return numbers


def flat(config: object, prefix: str = "") -> dict[str, str]:
    """A nested config as dotted keys, in its own order: `zoo.size: tiny`."""
    if isinstance(config, Mapping) and config:
        items = [(str(key), value) for key, value in config.items()]
    elif isinstance(config, Sequence) and not isinstance(config, str) and _nested(config):
        items = [(str(index), value) for index, value in enumerate(config)]
    else:
        return {prefix: _scalar(config)}
    rows: dict[str, str] = {}
    for key, value in items:
        rows |= flat(value, f"{prefix}.{key}" if prefix else key)
    return rows


def _nested(values: Sequence[object]) -> bool:
    """Whether a list holds mappings (pairs), which get a row each."""
    return any(isinstance(value, Mapping) for value in values)


def _scalar(value: object) -> str:
    """A leaf of the config as text."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def checkpoints(run_dir: Path) -> pd.DataFrame:
    """Facts of every checkpoint manifest of the run, one row a model."""
    rows = []
    for path in sorted(run_dir.glob("checkpoints/*/manifest.json")):
        facts = read_manifest(path.parent)["facts"]
        rows.append({"model": path.parent.name} | {fact: facts.get(fact) for fact in _FACTS})
    return pd.DataFrame(rows)


def table_hashes(run_dir: Path) -> dict[str, str]:
    """The sha256 of every CSV under `tables/`."""
    paths = sorted(run_dir.glob("tables/**/*.csv"))
    return {path.relative_to(run_dir).as_posix(): hash_file(path) for path in paths}


def commit() -> dict[str, str]:
    """The commit of this code, and whether files differ from it; empty outside a clone.

    A package that lies in someone else's repository, as an environment can, is none of its commits.
    """
    root = Path(__file__).resolve().parents[3]
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return {}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    head = _git(root, "rev-parse", "HEAD")
    return {"commit": f"{head} with local changes" if changed else head}


def _git(root: Path, *words: str) -> str:
    """What git says; empty where there is no git or no repository."""
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
