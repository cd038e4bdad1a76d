"""Lanes of every experiment, as data; docs and tables call them by `LaneFacts`."""

import numpy as np
from jaxtyping import Float

from actshift.patching import (
    RECEIVER,
    Contrast,
    Noise,
    PatchEdit,
    PatchPositions,
    Push,
    SourceSide,
    Take,
)
from actshift.random_streams import RANDOM_PUSHES
from actshift.studies.localization.bases import FITTED, RANDOM, Bases, Moments
from actshift.studies.localization.settings import (
    POSITIONS,
    Direction,
    LaneFacts,
    LaneSettings,
    Planned,
)

#: Experiments whose donor reads another pair.
PARTNERED = ("shuffled", "other_condition")
#: Where a control stands beside the patch: everywhere, and where the published peak may be.
_BESIDE: tuple[PatchPositions, ...] = ("all", "last_prompt")


def natural_lanes(
    settings: LaneSettings,
    bases: Bases,
    donor: Moments,
    *,
    direction: Direction,
    partnered: tuple[str, ...],
) -> dict[str, list[Planned]]:
    """Experiments on completions as they are, by name.

    Low rank and random directions, most of all lanes, patch the base model only, as published.

    Args:
        settings: Ranks, weights, draws.
        bases: Of the fold.
        donor: Moments of the donor's states, which noise takes.
        direction: Forward is into base.
        partnered: Those of `PARTNERED` that the pairs allow.
    """
    layers, width = donor.mean.shape
    experiments = {
        "patch": patches(layers),
        "identity": _each("identity", Take(source=RECEIVER), layers, POSITIONS, source=RECEIVER),
        "whole_head": [Planned.make(LaneFacts("whole_head", layers - 1), Take(), head="donor")],
        "interpolation": [
            Planned.make(LaneFacts("interpolation", layer, alpha=alpha), Take(alpha))
            for alpha in settings.alphas
            for layer in range(layers)
        ],
        "noise": _noise(settings, donor),
    }
    for name in partnered:
        experiments[name] = _each(name, Take(source=name), layers, _BESIDE, source="partner")
    if direction == "forward":
        experiments["low_rank"] = _low_rank(settings, bases, layers)
        experiments["random"] = _random(settings, layers, width)
    return experiments


def matched_lanes(layers: int) -> dict[str, list[Planned]]:
    """Experiments that need completions of one length: source states of either side, A4.

    The contrast is added at completion tokens; at prompt tokens, where both sides are the same
    states, its lanes show that it is nothing.

    Args:
        layers: Number of decoder blocks.
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
    return {"patch": patches(layers), "source": sources}


def patches(layers: int) -> list[Planned]:
    """The donor's states at each layer and each choice of positions, A1.

    Args:
        layers: Number of decoder blocks.
    """
    return _each("patch", Take(), layers, POSITIONS)


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


def _low_rank(settings: LaneSettings, bases: Bases, layers: int) -> list[Planned]:
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


def _noise(settings: LaneSettings, donor: Moments) -> list[Planned]:
    return [
        Planned.make(
            LaneFacts("noise", layer, where, source=None, draw=draw),
            Noise(donor.mean[layer], donor.std[layer], seed=settings.seed * 1000 + draw),
        )
        for where in _BESIDE
        for draw in range(settings.noise_draws)
        for layer in range(len(donor.mean))
    ]


def _random(settings: LaneSettings, layers: int, width: int) -> list[Planned]:
    units = random_directions(settings.random_draws, layers, width, seed=settings.seed)
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

    Args:
        draws: How many.
        layers: Number of decoder blocks.
        width: Of the residual stream.
        seed: Of the draws; the first draws are the same however many there are.
    """
    drawn = np.stack(
        [RANDOM_PUSHES.rng(seed, d).standard_normal((layers, width)) for d in range(draws)]
    )
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
