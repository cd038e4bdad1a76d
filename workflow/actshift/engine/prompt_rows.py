"""The prompts of each condition, and which of them are fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from actshift.engine.stores import CONDITIONS
from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.vocab import Split


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

    Returns:
        Rows by condition: fitted, then held out.

    Raises:
        UserError: A set or condition is missing, too small, or shares a cluster between the two.
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
