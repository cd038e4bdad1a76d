"""What decides the lanes of Test 2, and which prompts they are asked of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from actshift.errors import UserError
from actshift.maths.bands import RELEASED_BANDS, band_layers
from actshift.prompts.records import Prompt
from actshift.vocab import Split

#: Frames fitted on data, in the order of the tables; `random` is drawn.
FrameName = Literal["naive", "template", "did", "template_harmless", "activation"]
FRAMES: tuple[FrameName, ...] = ("naive", "template", "did", "template_harmless", "activation")
#: Frames of the experiments that take single directions, and of those that patch.
DIRECTION_FRAMES: tuple[FrameName, ...] = ("template", "did")
PATCH_FRAMES: tuple[FrameName, ...] = ("template", "did", "template_harmless")
#: Resamples behind `self_cosine`.
SELF_COSINE_DRAWS = 100
#: Directions whose pairs and leave-one-out sets are ablated.
COMBINED = 5


@dataclass(frozen=True)
class AblationSettings:
    """What decides the lanes.

    Attributes:
        harmful: Prompt set of the treatment condition.
        harmless: Prompt set of the control condition.
        ks: Numbers of leading directions; those above the width are left out.
        directions: Single directions that are ablated alone.
        random_draws: Random frames of the sweep.
        patch_draws: Random frames of the patch experiments.
        seed: Seed of the random frames and of the resamples.
    """

    harmful: str = "harmful"
    harmless: str = "harmless"
    ks: tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    directions: int = 10
    random_draws: int = 20
    patch_draws: int = 5
    seed: int = 0


def bands_of(depth: int) -> dict[str, tuple[int, ...]]:
    """The narrow and the wide band of a model of some depth; repeated layers count once.

    Source: arXiv 2605.24583 released code (`band_layers`), without the bands printed in the paper.
    """
    bands = band_layers(depth)
    return {name: bands[name] for name in RELEASED_BANDS}


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
    chosen = [one for one in prompts if one.condition == condition and one.split == split]
    if not chosen:
        raise UserError(
            f"ablation: the prompt set '{prompt_set}' has no '{condition}' prompts in the split "
            f"{split}; add some or other split shares"
        )
    return balanced(chosen, most)
