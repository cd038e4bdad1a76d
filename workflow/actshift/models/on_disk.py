"""Where a model lies on this disk, before any stage runs."""

from dataclasses import dataclass
from pathlib import Path

from actshift.models.hub_cache import cached_snapshot
from actshift.models.sources import HubSource, LocalSource, Source, read_model_config, shape_in


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
