import multiprocessing
import os
import time
from pathlib import Path

import pytest

from actshift.io.atomic import (
    atomic_write_bytes,
    atomic_write_text,
    file_lock,
    publish_tree,
    publishing,
    tree_files,
)


def test_a_failed_write_leaves_the_old_file_and_no_strays(tmp_path, monkeypatch):
    path = tmp_path / "a" / "t.txt"
    atomic_write_text(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert tree_files(tmp_path) == ["a/t.txt"]


def test_publishing_replaces_a_folder_as_a_whole_and_shares_its_bytes(tmp_path):
    staged, target = tmp_path / "staged", tmp_path / "out" / "target"
    atomic_write_text(staged / "sub" / "new.txt", "n")
    (staged / ".snakemake_timestamp").touch()
    atomic_write_text(target / "old.txt", "o")
    publish_tree(staged, target)
    assert tree_files(target) == ["sub/new.txt"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert (target / "sub/new.txt").samefile(staged / "sub/new.txt")


def test_a_failed_publication_leaves_the_old_folder(tmp_path):
    target = tmp_path / "target"
    atomic_write_text(target / "old.txt", "o")
    with pytest.raises(RuntimeError), publishing(target) as partial:  # noqa: PT012
        partial.mkdir()
        raise RuntimeError
    assert tree_files(tmp_path) == ["target/old.txt"]


def test_what_a_killed_publisher_left_is_swept(tmp_path):
    atomic_write_text(tmp_path / "staged" / "a", "a")
    atomic_write_text(tmp_path / ".target.partial" / "stray", "x")
    publish_tree(tmp_path / "staged", tmp_path / "target")
    assert tree_files(tmp_path) == ["staged/a", "target/a"]


def _hold(path: Path, log: Path) -> None:
    with file_lock(path), log.open("a") as file:
        file.write("in\n")
        file.flush()
        time.sleep(0.1)
        file.write("out\n")


def test_lock_holders_take_turns(tmp_path):
    context = multiprocessing.get_context("spawn")
    args = (tmp_path / "k" / "m.lock", tmp_path / "log")
    workers = [context.Process(target=_hold, args=args) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3
