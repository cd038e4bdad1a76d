"""The hub's cache on this disk, by the hub library's own rules, without importing the library."""

import os
from pathlib import Path


def hub_cache() -> Path:
    """The hub cache folder by the hub library's own rules, without importing the library."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(home, "huggingface"))
    cache = os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))
    return Path(os.path.expandvars(cache)).expanduser()


def cached_snapshot(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model in the local cache, or None where that revision is not there."""
    repo = hub_cache() / f"models--{repo_id.replace('/', '--')}"
    wanted = revision or "main"
    ref = repo / "refs" / wanted
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
    folder = repo / "snapshots" / commit
    return folder if folder.is_dir() else None
