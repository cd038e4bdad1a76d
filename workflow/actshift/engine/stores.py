"""Activation stores and prompts of one pair, as studies read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.errors import UserError
from actshift.io.store import ActivationStore
from actshift.prompts.records import Prompt
from actshift.vocab import Role, Split, Template

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
        """Open one stream; one that was not handed to this job, or is damaged, is a UserError."""
        folder = self._folders.get((role, prompt_set, template))
        if folder is None:
            raise UserError(
                f"no store of {role} {prompt_set}.{template}; the rule must list it as an input"
            )
        # The type checker does not take a cached_property for a property.
        return cast(StreamReader, ActivationStore.open(folder))


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Prompts of one condition and some splits, in file order."""

    prompt_set: str
    ids: tuple[str, ...]
    categories: tuple[str, ...]
    clusters: tuple[str, ...]

    def mask(self, category: str) -> Bool[np.ndarray, " prompt"]:
        """Which rows belong to the category."""
        return np.array([name == category for name in self.categories], dtype=bool)


def fit_and_heldout(
    prompts: Mapping[str, Sequence[Prompt]],
    sets: Mapping[str, str],
    *,
    fit: Sequence[Split],
    heldout: Sequence[Split],
) -> tuple[dict[str, PromptRows], dict[str, PromptRows]]:
    """Sort the prompts of both conditions into those that are fitted on and those held out.

    Args:
        prompts: Prompt sets by name, in file order.
        sets: Name of the prompt set of each condition; both may name one set.
        fit: Splits that are fitted on.
        heldout: Splits that are held out.

    Returns rows by condition. A set or condition that is missing, too small, or shares a cluster
    between the two is a UserError.
    """
    rows = {name: _rows(prompts, name, sets[name]) for name in CONDITIONS}
    fitted = {name: _of_splits(rows[name], sets[name], fit) for name in CONDITIONS}
    unseen = {name: _of_splits(rows[name], sets[name], heldout) for name in CONDITIONS}
    for name in CONDITIONS:
        if len(fitted[name].ids) < 2:
            raise UserError(
                f"conditions.{name}: {len(fitted[name].ids)} '{name}' prompts in the splits "
                f"{', '.join(fit)}; at least 2 are needed, add prompts or splits"
            )
        shared = sorted(set(fitted[name].clusters) & set(unseen[name].clusters))
        if shared:
            raise UserError(
                f"conditions.{name}: cluster '{shared[0]}' is both fitted and held out; "
                "splits go by cluster, mend the prompt set"
            )
    return fitted, unseen


def _rows(prompts: Mapping[str, Sequence[Prompt]], condition: str, prompt_set: str) -> list[Prompt]:
    """Unpaired prompts of one set; of that condition where the set tells conditions apart."""
    if prompt_set not in prompts:
        raise UserError(
            f"conditions.{condition}: no prompt set '{prompt_set}'; "
            f"found: {', '.join(sorted(prompts)) or 'none'}"
        )
    single = [row for row in prompts[prompt_set] if row.pair is None]
    named = [row for row in single if row.condition == condition]
    if not named and len({row.condition for row in single}) > 1:
        raise UserError(
            f"conditions.{condition}: prompt set '{prompt_set}' holds several conditions and "
            f"none is '{condition}'; name the condition or use a set of its own"
        )
    return named or single


def _of_splits(rows: Sequence[Prompt], prompt_set: str, splits: Sequence[Split]) -> PromptRows:
    chosen = [row for row in rows if row.split in splits]
    return PromptRows(
        prompt_set=prompt_set,
        ids=tuple(row.id for row in chosen),
        categories=tuple(row.category for row in chosen),
        clusters=tuple(row.cluster for row in chosen),
    )
