"""File systems that refuse: mounted for one test, where this process may mount."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory on a folder while the block runs.

    Args:
        folder: Made if it is missing.
        options: Of the mount: `ro` is read-only, `size=16k` is small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no permission to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Make a folder, with all that it holds, read-only while the block runs."""
    mount = shutil.which("mount")
    bind = [str(mount), "--bind", str(folder), str(folder)]
    if mount is None or subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("no permission to mount a folder on itself")
    try:
        remount = [str(mount), "-o", "remount,bind,ro", str(folder)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("no permission to mount a folder read-only")
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
