"""What the study reads of a pair: last-token activations and the prompts that are asked."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from actshift.engine.stores import CONDITIONS, PairStores, StreamReader
from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.vocab import Role, Split, Template

#: Streams that frames are fitted on.
STREAMS: tuple[tuple[Role, Template], ...] = (("tuned", "chat"), ("base", "chat"), ("base", "raw"))
Rows = Float[np.ndarray, "prompt d_model"]


class Activations:
    """Last-prompt-token activations of one pair, by layer, stream and prompts."""

    def __init__(self, stores: PairStores, sets: Mapping[str, str]) -> None:
        """Open the streams.

        Args:
            stores: Opens the streams of the pair.
            sets: Name of the prompt set of each condition.

        Raises:
            UserError: The two models differ in depth.
        """
        self._readers: dict[tuple[Role, Template, str], StreamReader] = {
            (role, template, condition): stores.open(role, sets[condition], template)
            for role, template in STREAMS
            for condition in CONDITIONS
        }
        depths = {len(reader.layers) for reader in self._readers.values()}
        if len(depths) != 1:
            raise UserError("ablation: base and tuned have different depths; a pair needs one")
        self.depth = depths.pop()

    def read(
        self, layer: int, role: Role, template: Template, condition: str, prompts: Sequence[Prompt]
    ) -> Rows:
        """Rows in the order of the prompts, float64."""
        reader = self._readers[role, template, condition]
        rows = reader.read(layer, -1, [prompt.id for prompt in prompts])
        return np.asarray(rows, dtype=np.float64)


def of_split(prompts: Sequence[Prompt], split: Split, condition: str) -> list[Prompt]:
    """The prompts of one condition and split.

    Raises:
        UserError: There are fewer than two.
    """
    chosen = [
        prompt for prompt in prompts if prompt.split == split and prompt.condition == condition
    ]
    if len(chosen) < 2:
        raise UserError(
            f"ablation: {len(chosen)} '{condition}' prompts in the split {split}; at least 2 are "
            "needed, add prompts or other split shares"
        )
    return chosen


def balanced(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most `most` prompts, clusters served in turn, each in file order.

    Args:
        prompts: In file order.
        most: How many to keep.

    Returns:
        The first prompt of every cluster, then the second of every cluster, and so on: the counts
        of two clusters differ by more than one only where a cluster has run out.
    """
    by_cluster: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_cluster.setdefault(prompt.cluster, []).append(prompt)
    longest = max(map(len, by_cluster.values()), default=0)
    turns = [
        rows[turn] for turn in range(longest) for rows in by_cluster.values() if turn < len(rows)
    ]
    return turns[:most]


def asked_prompts(
    prompts: Sequence[Prompt], condition: str, split: Split, most: int, *, prompt_set: str
) -> list[Prompt]:
    """The prompts of one condition and split that lanes are run on.

    Raises:
        UserError: There are none.
    """
    chosen = [
        prompt for prompt in prompts if prompt.condition == condition and prompt.split == split
    ]
    if not chosen:
        raise UserError(
            f"ablation: the prompt set '{prompt_set}' has no '{condition}' prompts in the split "
            f"{split}; add some or other split shares"
        )
    return balanced(chosen, most)
