"""Where a model lies on this disk, the hub's cache by the hub library's own rules included."""

import os
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

from actshift.models.sources import HubSource, LocalSource, Source, read_model_config, shape_in


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


def cached_snapshot(
    repo_id: str, revision: str | None = None, *, repo_type: str = "model"
) -> Path | None:
    """The folder of a repository in the local cache, or None where that revision is not there."""
    repo = hub_cache() / f"{repo_type}s--{repo_id.replace('/', '--')}"
    wanted = revision or "main"
    ref = repo / "refs" / wanted
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
    folder = repo / "snapshots" / commit
    return folder if folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that holds a model's files.

    Attributes:
        path: the folder.
        whole: whether all files of the model must be there; the hub's cache may hold a part.
    """

    path: Path
    whole: bool


def place_of(source: Source) -> Place | None:
    """Where a model lies on this disk; None where it is not there, or is made by the run."""
    if isinstance(source, LocalSource):
        return Place(source.folder, whole=True)
    if not isinstance(source, HubSource):
        return None
    folder = cached_snapshot(source.repo_id, source.revision)
    if folder is None or not (folder / "config.json").is_file():
        return None
    return Place(folder, whole=False)


def shape_of(source: Source) -> tuple[int, int] | None:
    """`(n_layers, d_model)` of a model, read from what is on this disk; None where it is not known.

    Raises:
        UserError: a local folder or its `config.json` is missing or not readable.
    """
    place = place_of(source)
    return None if place is None else shape_in(read_model_config(place.path), name=str(source))
