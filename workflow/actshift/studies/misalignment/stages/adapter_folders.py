"""Folders of adapters: those that exist already, and those of a job that was stopped."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.models.adapters import CONFIG, WEIGHTS, save_adapter
from actshift.models.sources import LocalSource, parse_adapter

_LOSSES = "losses.json"


@dataclass(frozen=True)
class GivenAdapter:
    """An adapter that exists, and what identifies it without a path of this machine."""

    folder: Path
    facts: dict[str, Any]


def locate(given: Mapping[str, Any], key: str) -> GivenAdapter:
    """Find an adapter on this disk or bring it here.

    Args:
        given: `source` and `revision`.
        key: Its config key, for messages.

    Raises:
        UserError: Neither a folder nor a hub id, or the hub does not give it.
    """
    with named(key):
        source = parse_adapter(given["source"], revision=given.get("revision"))
        if isinstance(source, LocalSource):
            return GivenAdapter(source.folder, {"source": source.folder.name, "revision": None})
        # Only here: the hub library costs a second that local folders need not pay.
        from actshift.models.hub import fetch

        folder, commit = fetch(source.repo_id, source.revision)
        return GivenAdapter(folder, {"source": source.repo_id, "revision": commit})


@contextmanager
def named(key: str) -> Iterator[None]:
    """Put the config key in front of what is told."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


@dataclass(frozen=True)
class Kept:
    """Adapters that a job has trained so far, outside of what it publishes.

    Attributes:
        folder: Its name stands for all that decides the adapters.
        base: Hash of the weights they are trained on.
    """

    folder: Path
    base: str

    def at(self, multiple: float) -> "Kept":
        """Those that were trained at one multiple of the learning rate."""
        return Kept(self.folder / f"x{multiple:g}", self.base)

    def names(self, wanted: Iterable[str]) -> list[str]:
        """Those of some adapters that are there and whole."""
        return [name for name in wanted if self._is_whole(name)]

    def put(self, name: str, wrapped: Any, losses: list[float]) -> None:
        """Keep a trained adapter with the loss of every step."""
        with publishing(self.folder / name) as folder:
            save_adapter(wrapped, folder, base=self.base)
            (folder / _LOSSES).write_text(json.dumps(losses), encoding="utf-8")

    def take(self, name: str, folder: Path) -> list[float]:
        """Copy a kept adapter, as a plain peft folder, and return its losses."""
        shutil.copytree(self.folder / name, folder, ignore=shutil.ignore_patterns(_LOSSES))
        return self.losses(name)

    def losses(self, name: str) -> list[float]:
        """Loss of every step of a kept adapter, nats a token."""
        return json.loads((self.folder / name / _LOSSES).read_text(encoding="utf-8"))

    def _is_whole(self, name: str) -> bool:
        try:
            self.losses(name)
            json.loads((self.folder / name / CONFIG).read_text(encoding="utf-8"))
            with safe_open(self.folder / name / WEIGHTS, framework="numpy"):
                return True
        except (FileNotFoundError, NotADirectoryError, ValueError, SafetensorError):
            # Any other refusal of the file system is about the machine, not about the adapter.
            return False
