import os
import subprocess
import sys

import pytest

from actshift.io.atomic import (
    atomic_write_bytes,
    atomic_write_text,
    link_tree,
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
    with publishing(target) as partial:
        link_tree(staged, partial)
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
    with publishing(tmp_path / "target") as partial:
        link_tree(tmp_path / "staged", partial)
    assert tree_files(tmp_path) == ["staged/a", "target/a"]


HOLD = """
import sys, time
from pathlib import Path
from actshift.io.atomic import file_lock

with file_lock(Path(sys.argv[1])), Path(sys.argv[2]).open("a", buffering=1) as log:
    print("in", file=log)
    time.sleep(0.1)
    print("out", file=log)
"""


def test_lock_holders_take_turns(tmp_path):
    places = [str(tmp_path / "k" / "m.lock"), str(tmp_path / "log")]
    holders = [subprocess.Popen([sys.executable, "-c", HOLD, *places]) for _ in range(3)]
    assert [holder.wait() for holder in holders] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3
