"""`manifest.json`: what an artifact folder holds, so that damage and strangers are seen.

It carries the facts of the artifact, size and sha256 of every file (sha256 of files below
`SMALL` only) and its own hash. No time stamps, hosts or paths: equal artifacts, equal manifests.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text, hash_file, hash_json, tree_files

NAME = "manifest.json"
#: Files of at least this many bytes are recorded by size alone.
SMALL = 4 * 2**20


def write_manifest(folder: Path, *, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Record all files of a folder; written last, it says that the artifact is whole.

    The folder is complete but for its manifest. Returns the manifest as written.
    """
    files = {name: _describe(folder / name) for name in tree_files(folder) if name != NAME}
    manifest: dict[str, Any] = {"kind": kind, "facts": dict(facts), "files": files}
    manifest["sha256"] = hash_json(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write_text(folder / NAME, text + "\n")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder: keys kind, facts, files, sha256.

    Raises:
        UserError: It is missing, is not JSON, or does not carry its own hash.
    """
    path = folder / NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing, so {folder} is not a finished artifact; rerun the job that makes it"
        ) from None
    except ValueError:
        raise UserError(f"{path}: not readable as JSON; rerun the job that makes it") from None
    content = dict(manifest) if isinstance(manifest, dict) else {}
    if content.pop("sha256", None) != hash_json(content):
        raise UserError(f"{path}: does not carry its own sha256, so it was damaged or edited")
    return manifest


def weights_hash(folder: Path) -> str:
    """Hash over the weights of a checkpoint folder, as its manifest says."""
    return read_manifest(folder)["facts"]["weights_hash"]


def check_manifest(folder: Path, deep: bool = False) -> list[str]:
    """Compare a folder with its manifest; one line a problem, naming the file.

    `deep` also hashes every file whose sha256 is recorded; else only presence and sizes count.
    """
    try:
        files: dict[str, dict[str, Any]] = read_manifest(folder)["files"]
    except UserError as error:
        return [str(error)]
    problems = [
        problem
        for name, entry in files.items()
        if (problem := _check_file(folder / name, entry, deep=deep))
    ]
    strangers = sorted(set(tree_files(folder)) - set(files) - {NAME})
    return problems + [f"{folder / name}: not in the manifest" for name in strangers]


def check_files(folder: Path, names: list[str]) -> list[str]:
    """Hash the named files of a folder against its manifest; one line a problem."""
    files = read_manifest(folder)["files"]
    damage = [_check_file(folder / name, files[name], deep=True) for name in names]
    return [problem for problem in damage if problem]


def _describe(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size, "sha256": hash_file(path) if size < SMALL else None}


def _check_file(path: Path, entry: Mapping[str, Any], *, deep: bool) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    if size != entry["size"]:
        return f"{path}: holds {size} bytes, the manifest says {entry['size']}"
    if deep and entry["sha256"] and hash_file(path) != entry["sha256"]:
        return f"{path}: content differs from its sha256 in the manifest"
    return None
