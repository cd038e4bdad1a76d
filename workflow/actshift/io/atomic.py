"""Files and folders that are whole or not there, and the only hash (sha256) of the project."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Files that tools drop into finished folders; they are never copied, hashed or verified.
IGNORED = frozenset({".snakemake_timestamp"})


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file through a neighbour and one rename; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file through a neighbour and one rename."""
    atomic_write_bytes(path, text.encode())


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def tree_files(folder: Path) -> list[str]:
    """Return the sorted relative paths of all files below a folder, without `IGNORED` ones."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name not in IGNORED and (path.is_file() or path.is_symlink())
    )


def _link_file(source: str, target: str) -> str:
    # Not every file system has hard links, and none has them to another.
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
    return target


def link_tree(source: Path, target: Path) -> None:
    """Give every file of a folder a second name below a new folder."""
    ignore = shutil.ignore_patterns(*IGNORED)
    shutil.copytree(source, target, symlinks=True, ignore=ignore, copy_function=_link_file)


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Yield the path of a folder to be made, which becomes `target` when the block ends well."""
    partial = target.with_name(f".{target.name}.partial")
    old = target.with_name(f".{target.name}.old")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        yield partial
        remove(old)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        remove(old)
    finally:
        remove(partial)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive `flock` on a file; other processes wait, a dead holder frees it.

    The file is never removed: two holders could then lock two different files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hash_bytes(data: bytes) -> str:
    """Return the sha256 of a byte string as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content, read in blocks (links are followed)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8 kept, NaN refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_json(value: object) -> str:
    """Return the sha256 of a JSON-able value; equal values give equal hashes."""
    return hash_bytes(canonical_json(value).encode())
