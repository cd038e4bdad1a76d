"""Activation stores of one pair, as studies read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.errors import UserError
from actshift.io.store import ActivationStore
from actshift.vocab import Role, Template

CONDITIONS = ("harmful", "harmless")


@runtime_checkable
class StreamReader(Protocol):
    """The part of an activation store the audit needs."""

    @property
    def layers(self) -> Int[np.ndarray, " layer"]:
        """0-based decoder blocks."""
        ...

    @property
    def positions(self) -> Int[np.ndarray, " position"]:
        """Stored positions, negative from the end."""
        ...

    @property
    def prompt_ids(self) -> list[str]:
        """Stored prompts, in stored order."""
        ...

    def read(
        self, layer: int, position: int = -1, prompt_ids: Sequence[str] | None = None
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Rows of one layer and position, in the order asked for."""
        ...

    def read_window(
        self, layer: int, positions: Sequence[int], prompt_ids: Sequence[str] | None = None
    ) -> tuple[Float[np.ndarray, "position prompt d_model"], Bool[np.ndarray, "position prompt"]]:
        """Several positions of one layer, with a mask of those that exist."""
        ...


@runtime_checkable
class PairStores(Protocol):
    """Opens the stores of one pair."""

    def open(self, role: Role, prompt_set: str, template: Template) -> StreamReader:
        """The store of one stream; StoreError when it is missing or incomplete."""
        ...


class FolderStores:
    """The stores of one pair, found by their folders `<pair>.<role>/<prompt set>.<template>`."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Index the folders by role, prompt set and template."""
        self._folders: dict[tuple[str, str, str], Path] = {}
        for folder in folders:
            prompt_set, _, template = folder.name.rpartition(".")
            role = folder.parent.name.rpartition(".")[2]
            self._folders[role, prompt_set, template] = folder

    def open(self, role: Role, prompt_set: str, template: Template) -> StreamReader:
        """Open one stream.

        Raises:
            UserError: The stream was not handed to this job.
            StoreError: The store is incomplete or damaged.
        """
        folder = self._folders.get((role, prompt_set, template))
        if folder is None:
            raise UserError(
                f"no store of {role} {prompt_set}.{template}; the rule must list it as an input"
            )
        # The type checker does not take a cached_property for a property.
        return cast(StreamReader, ActivationStore.open(folder))
