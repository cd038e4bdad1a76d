"""Lanes of every experiment as data, and the facts that docs and tables call them by."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from actshift.patching import (
    RECEIVER,
    Contrast,
    Noise,
    PatchEdit,
    PatchLane,
    PatchPositions,
    Push,
    SourceSide,
    Take,
)
from actshift.random_streams import RANDOM_PUSHES
from actshift.studies.localization.bases import FITTED, RANDOM, Bases, Moments
from actshift.studies.localization.study import Localization

#: Forward: base is patched from tuned. Reverse: tuned from base.
Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")
LENGTHS = ("natural", "matched")
POSITIONS: tuple[PatchPositions, ...] = ("all", "prompt", "completion", "last_prompt")
#: Experiments whose donor reads another pair.
PARTNERED = ("shuffled", "other_condition")
#: Where a control stands beside the patch: everywhere, and where the published peak may be.
_BESIDE: tuple[PatchPositions, ...] = ("all", "last_prompt")


def within(settings: Localization, d_model: int) -> Localization:
    """The settings without ranks that are not below the width."""
    ranks = tuple(k for k in settings.ranks if k < d_model) or (1,)
    return settings.model_copy(update={"ranks": ranks})


@dataclass(frozen=True)
class LaneFacts:
    """What names a lane in tables.

    Attributes:
        experiment: patch, interpolation, source, low_rank, identity, noise, random, shuffled,
            other_condition or whole_head.
        layer: 0-based decoder block whose output is edited.
        positions: At which tokens.
        alpha: Weight of the source's states.
        rank: Of the basis; None is the whole space.
        basis: shift, states, base_states or random; None without a basis.
        keep_rest: Whether the receiver keeps what lies outside the basis.
        source: donor, receiver, chosen, rejected, contrast or partner; None for noise.
        draw: Number of a random draw.
    """

    experiment: str
    layer: int
    positions: PatchPositions = "all"
    alpha: float = 1.0
    rank: int | None = None
    basis: str | None = None
    keep_rest: bool = True
    source: str | None = "donor"
    draw: int | None = None

    @property
    def name(self) -> str:
        """Unique in its experiment, direction and fold."""
        parts = [self.experiment, self.positions]
        parts += [] if self.source in (None, "donor") else [self.source]
        parts += [f"a{self.alpha:g}"] if self.experiment == "interpolation" else []
        parts += [] if self.basis is None else [self.basis, f"k{self.rank}"]
        parts += [] if self.keep_rest else ["alone"]
        parts += [] if self.draw is None else [f"d{self.draw}"]
        return f"{'.'.join(parts)}@{self.layer}"

    def row(self) -> dict[str, Any]:
        """The columns of a table, `lane` first."""
        return {"lane": self.name, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Planned:
    """A lane and its facts."""

    lane: PatchLane
    facts: LaneFacts

    @classmethod
    def make(
        cls, facts: LaneFacts, edit: PatchEdit, *, head: Literal["receiver", "donor"] = "receiver"
    ) -> "Planned":
        """Name the lane after its facts; `head` is whose final norm and head score it."""
        return cls(PatchLane(facts.name, facts.layer, edit, facts.positions, head), facts)


def natural_lanes(
    settings: Localization,
    bases: Bases,
    donor: Moments,
    *,
    direction: Direction,
    partnered: tuple[str, ...],
    seed: int,
) -> dict[str, list[Planned]]:
    """Experiments on completions as they are, by name.

    Low rank and random directions, most of all lanes, patch the base model only, as published.

    `donor` are the moments that noise takes; `partnered` those of `PARTNERED` that the pairs allow.
    """
    layers, width = donor.mean.shape
    experiments = {
        "patch": _each("patch", Take(), layers, POSITIONS),
        "identity": _each("identity", Take(source=RECEIVER), layers, POSITIONS, source=RECEIVER),
        "whole_head": [Planned.make(LaneFacts("whole_head", layers - 1), Take(), head="donor")],
        "interpolation": [
            Planned.make(LaneFacts("interpolation", layer, alpha=alpha), Take(alpha))
            for alpha in settings.alphas
            for layer in range(layers)
        ],
        "noise": _noise(settings, donor, seed),
    }
    for name in partnered:
        experiments[name] = _each(name, Take(source=name), layers, _BESIDE, source="partner")
    if direction == "forward":
        experiments["low_rank"] = _low_rank(settings, bases, layers)
        experiments["random"] = _random(settings, layers, width, seed)
    return experiments


def matched_lanes(layers: int) -> dict[str, list[Planned]]:
    """Experiments that need completions of one length: source states of either side, A4.

    The contrast is added at completion tokens; at prompt tokens, where both sides are the same
    states, its lanes show that it is nothing.
    """
    sides: tuple[SourceSide, ...] = ("chosen", "rejected")
    sources = [
        *(
            lane
            for side in sides
            for lane in _each("source", Take(side=side), layers, ("completion",), source=side)
        ),
        *_each("source", Contrast(), layers, ("completion", "prompt"), source="contrast"),
    ]
    return {"patch": _each("patch", Take(), layers, POSITIONS), "source": sources}


def _each(
    experiment: str,
    edit: PatchEdit,
    layers: int,
    positions: tuple[PatchPositions, ...],
    *,
    source: str = "donor",
) -> list[Planned]:
    return [
        Planned.make(LaneFacts(experiment, layer, where, source=source), edit)
        for where in positions
        for layer in range(layers)
    ]


def _low_rank(settings: Localization, bases: Bases, layers: int) -> list[Planned]:
    """A5: the donor's part in a basis with the receiver's rest, and the published P s alone."""
    kinds = [*((name, True) for name in (*FITTED, RANDOM)), ("states", False)]
    return [
        Planned.make(
            LaneFacts("low_rank", layer, rank=k, basis=name, keep_rest=keep),
            Take(basis=bases[name][layer][:, :k], keep_rest=keep),
        )
        for name, keep in kinds
        for k in settings.ranks
        for layer in range(layers)
    ]


def _noise(settings: Localization, donor: Moments, seed: int) -> list[Planned]:
    return [
        Planned.make(
            LaneFacts("noise", layer, where, source=None, draw=draw),
            Noise(donor.mean[layer], donor.std[layer], seed=seed * 1000 + draw),
        )
        for where in _BESIDE
        for draw in range(settings.noise_draws)
        for layer in range(len(donor.mean))
    ]


def _random(settings: Localization, layers: int, width: int, seed: int) -> list[Planned]:
    units = random_directions(settings.random_draws, layers, width, seed=seed)
    return [
        Planned.make(LaneFacts("random", layer, where, draw=draw), Push(units[draw, layer]))
        for where in _BESIDE
        for draw in range(settings.random_draws)
        for layer in range(layers)
    ]


def random_directions(
    draws: int, layers: int, width: int, *, seed: int
) -> Float[np.ndarray, "draw layer d_model"]:
    """Directions of unit length, uniform on the sphere, one a draw and layer.

    The first draws are the same however many there are.
    """
    drawn = np.stack(
        [RANDOM_PUSHES.rng(seed, d).standard_normal((layers, width)) for d in range(draws)]
    )
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
