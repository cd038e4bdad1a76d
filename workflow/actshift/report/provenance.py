"""What a page's numbers came from: settings, versions, checkpoints, file hashes, timings."""

import csv
import platform
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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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


def timings(run_dir: Path) -> list[dict[str, str | float]]:
    """What Snakemake measured of each job: seconds and peak memory in MB."""
    rows: list[dict[str, str | float]] = []
    for path in sorted(run_dir.glob("timings/**/*.tsv")):
        with path.open(newline="", encoding="utf-8") as stream:
            for record in csv.DictReader(stream, delimiter="\t"):
                job = path.relative_to(run_dir / "timings").with_suffix("").as_posix()
                rows.append({"job": job, "seconds": _float(record.get("s")),
                             "peak_mb": _float(record.get("max_rss"))})  # fmt: skip
    return rows


def _float(text: str | None) -> float:
    """A number, or -1 where Snakemake was too late to measure."""
    try:
        return float(text or "-1")
    except ValueError:
        return -1.0
