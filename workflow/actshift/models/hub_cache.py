"""The hub's cache on this disk and the library's settings, by the library's own rules."""

import os
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any


def hub_settings() -> Any:
    """The hub library's own constants under the environment of now.

    Its module `constants` is run again, so that no variable that it reads is left out here:
    `HF_HOME`, `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `XDG_CACHE_HOME`, `HF_ENDPOINT`,
    `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`. That takes about a millisecond and imports none of
    the library's slow parts.
    """
    spec = find_spec("huggingface_hub.constants")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("huggingface_hub.constants")
    constants = module_from_spec(spec)
    spec.loader.exec_module(constants)
    return constants


def hub_cache() -> Path:
    """The hub cache folder by the hub library's own rules."""
    return Path(hub_settings().HF_HUB_CACHE)


def cache_variable() -> str:
    """The variable that decides where the cache lies now, or the one to set where none does."""
    set_here = (
        name
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
        if os.environ.get(name)
    )
    return next(set_here, "HF_HOME")


def offline_variable() -> str:
    """The variable that keeps the hub library off the network."""
    return "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"


def cached_snapshot(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model in the local cache, or None where that revision is not there."""
    repo = hub_cache() / f"models--{repo_id.replace('/', '--')}"
    wanted = revision or "main"
    ref = repo / "refs" / wanted
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
    folder = repo / "snapshots" / commit
    return folder if folder.is_dir() else None
