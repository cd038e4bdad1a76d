"""The lanes of steering within a model: which vector is subtracted from whom, where, how much.

A lane subtracts coeff x scale x vector. A vector has the norm that its control is compared at:
that of the receiver's own v, or its own where it is a direction as it comes (`direction`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from actshift.errors import UserError
from actshift.lanes import Lane, Placed, Steer
from actshift.studies.misalignment.kinds import INSECURE, KINDS, NULLS, STEERED, Protocol
from actshift.studies.misalignment.nulls import (
    LayerStates,
    cosine,
    null_draws,
    orthogonalised,
    rescaled,
)

#: Which questions a lane is asked: `select` and `heldout`, or `heldout` alone.
AskedOf = Literal["both", "heldout"]
#: Directions of other adapters that are also subtracted at every token.
_OTHER_AT_ALL_TOKENS = tuple(kind for kind in STEERED if kind != INSECURE)
_Vector = Float[np.ndarray, " d_model"]


@dataclass(frozen=True)
class LaneFacts:
    """One row of `lanes.parquet`, without its number.

    Attributes:
        protocol: How the edit acts.
        receiver: Adapter that is edited.
        donor: Pair that the direction comes from.
        control: plain, direction, a null or a relative.
        source: Adapter or layer that the direction comes from.
        layer: Edited block.
        orthogonal: Whether the part along v was taken away.
        coeff: Multiple of the vector.
        norm_rule: Equal norm, or equal KL on `select`.
        scale: Multiple on top of the coefficient: 1 at equal norm.
        draw: Number of the draw, -1 where nothing is drawn.
        cosine: With the pair's own v_insecure of the layer.
        kl_select: Mean KL(plain || edited) of the first token on `select` noncode questions.
        status: `unmatched` where no scale gives v's KL; such a lane has no outcomes.
    """

    protocol: Protocol
    receiver: str
    donor: str
    control: str
    source: str
    layer: int
    orthogonal: bool = False
    coeff: float = 0.0
    norm_rule: Literal["norm", "kl"] = "norm"
    scale: float = 1.0
    draw: int = -1
    cosine: float = float("nan")
    kl_select: float = float("nan")
    status: Literal["ok", "unmatched"] = "ok"


@dataclass(frozen=True, eq=False)
class Planned:
    """A lane: its facts, the vector behind it, and which questions it is asked.

    Attributes:
        facts: Its row.
        vector: Before coefficient and scale.
        asked: Of which splits.
    """

    facts: LaneFacts
    vector: _Vector
    asked: AskedOf = "heldout"

    @property
    def subtracted(self) -> _Vector:
        """Coeff x scale x vector, float32."""
        return (self.facts.coeff * self.facts.scale * self.vector).astype(np.float32)

    def at_scale(self, scale: float, **facts: Any) -> "Planned":
        """The same lane at another scale, with other facts where they are given."""
        return Planned(replace(self.facts, scale=float(scale), **facts), self.vector, self.asked)

    def lane(self) -> Lane:
        """As the engine takes it: the edit of every token at the lane's block."""
        if self.facts.control == "plain":
            return Lane("plain")
        steer = Steer(self.subtracted, -1.0)
        return Lane(f"{self.facts.control}", (Placed(steer, self.facts.layer, positions="all"),))


@dataclass(frozen=True, eq=False)
class Material:
    """What lanes are made of.

    Attributes:
        pair: Name of the pair.
        directions: v of every adapter, `[layer, d_model]`.
        states: Of the insecure adapter, by layer.
        settings: Fields of the config's `misalignment`.
        seed: Of the run.
    """

    pair: str
    directions: Mapping[str, Float[np.ndarray, "layer d_model"]]
    states: Mapping[int, LayerStates]
    settings: Mapping[str, Any]
    seed: int
    _drawn: dict[tuple[str, int], Float[np.ndarray, "draw d_model"]] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.directions[INSECURE])

    @property
    def final(self) -> int:
        """The last block."""
        return self.depth - 1

    def v(self, layer: int, kind: str = INSECURE) -> _Vector:
        """Direction of an adapter at a layer, float64."""
        return np.asarray(self.directions[kind][layer], dtype=np.float64)

    def null(self, name: str, layer: int, draws: int) -> Float[np.ndarray, "draw d_model"]:
        """The first draws of a null, at the norm of v_insecure of the layer."""
        most = self.settings["final_draws" if layer == self.final else "lane_draws"]
        most = max(most, *(self.settings[f"{name}_draws"] for name in ("lane", "kl", "lane_kl")))
        if (name, layer) not in self._drawn:
            self._drawn[name, layer] = null_draws(
                name, self.v(layer), self.states[layer], draws=most, seed=self.seed, layer=layer
            )
        return self._drawn[name, layer][:draws]

    def planned(self, vector: _Vector, asked: AskedOf = "heldout", **facts: Any) -> Planned:
        """A lane of the insecure adapter, unless the facts say otherwise."""
        named = {"receiver": INSECURE, "donor": self.pair, "source": INSECURE, **facts}
        named.setdefault("cosine", cosine(vector, self.v(named["layer"])))
        return Planned(LaneFacts(**named), vector, asked)

    def at_all_coeffs(
        self, vector: _Vector, asked: AskedOf = "heldout", **facts: Any
    ) -> list[Planned]:
        """One lane a coefficient."""
        coeffs = self.settings["coeffs"]
        return [self.planned(vector, asked, coeff=coeff, **facts) for coeff in coeffs]


def check_directions(
    directions: Mapping[str, Float[np.ndarray, "layer d_model"]], *, where: str
) -> None:
    """Refuse directions that lanes cannot be made of.

    Raises:
        UserError: That of the insecure adapter is missing, or one is zero at some layer.
    """
    if INSECURE not in directions:
        raise UserError(f"{where}: has no direction of '{INSECURE}'; run spillover again")
    for kind, of_kind in directions.items():
        zero = [layer for layer, v in enumerate(of_kind) if not np.any(v)]
        if zero:
            raise UserError(
                f"{where}: the direction of '{kind}' is zero at layer {zero[0]}: the adapter "
                "changes nothing there, so nothing can be subtracted"
            )


def middle_layers(depth: int) -> tuple[int, ...]:
    """Blocks of the middle half: depth/4 <= layer < 3 depth/4, never the last block."""
    return tuple(layer for layer in range(depth - 1) if depth <= 4 * layer < 3 * depth)


def plain_lane(material: Material, receiver: str) -> Planned:
    """The receiver as it is."""
    final = material.final
    return material.planned(
        np.zeros_like(material.v(final)),
        "both",
        protocol="last_token",
        receiver=receiver,
        control="plain",
        source="",
        layer=final,
        cosine=float("nan"),
    )


def own_lanes(material: Material, protocol: Protocol, layer: int) -> list[Planned]:
    """v_insecure on its own adapter at every coefficient."""
    facts = {"protocol": protocol, "control": "direction", "layer": layer}
    return material.at_all_coeffs(material.v(layer), "both", **facts)


def content_lanes(material: Material, protocol: Protocol, receiver: str) -> list[Planned]:
    """The same subtraction on an adapter of other content, and that adapter's own direction.

    Both as they come: v_insecure is not rescaled to the receiver's own norm.
    """
    layer = material.final
    facts = {"protocol": protocol, "receiver": receiver, "control": "direction", "layer": layer}
    return [
        one
        for source in (INSECURE, receiver)
        for one in material.at_all_coeffs(material.v(layer, source), "both", source=source, **facts)
    ]


def relatives(material: Material) -> list[Planned]:
    """Directions of all other layers and adapters, for the edit of the last token."""
    layer = material.final
    others = {
        ("wrong_layer", f"layer {other}"): material.v(other)
        for other in range(material.depth)
        if other != layer
    } | {
        ("other_adapter", kind): material.v(layer, kind)
        for kind in KINDS
        if kind != INSECURE and kind in material.directions
    }
    return list(_related(material, others, "last_token"))


def other_adapters(material: Material) -> list[Planned]:
    """Directions of the adapters of other content, subtracted at every token."""
    layer = material.final
    others = {
        ("other_adapter", kind): material.v(layer, kind)
        for kind in _OTHER_AT_ALL_TOKENS
        if kind in material.directions
    }
    return list(_related(material, others, "all_tokens"))


def _related(
    material: Material, others: Mapping[tuple[str, str], _Vector], protocol: Protocol
) -> Iterator[Planned]:
    """Relatives at the norm of v, as they are and without their part along v."""
    layer = material.final
    v = material.v(layer)
    for (control, source), vector in others.items():
        raw = rescaled(vector[None], float(np.linalg.norm(v)))[0]
        facts = {"protocol": protocol, "control": control, "source": source, "layer": layer}
        yield from material.at_all_coeffs(raw, **facts)
        yield from material.at_all_coeffs(orthogonalised(raw, v), orthogonal=True, **facts)


def final_draws(material: Material) -> list[Planned]:
    """Every null at every coefficient, for the edit of the last token.

    Mapped directions of other models are held against them too, each at its own coefficient.
    """
    return [
        one
        for coeff in material.settings["coeffs"]
        for one in draws_at(
            material, "last_token", material.final, coeff, material.settings["final_draws"]
        )
    ]


def draws_at(
    material: Material, protocol: Protocol, layer: int, coeff: float, draws: int
) -> list[Planned]:
    """Draws of every null at one coefficient and equal norm."""
    return [
        material.planned(
            vector, protocol=protocol, control=name, layer=layer, coeff=coeff, draw=draw
        )
        for name in NULLS
        for draw, vector in enumerate(material.null(name, layer, draws))
    ]


def kl_draws(material: Material, protocol: Protocol) -> int:
    """Draws of each null that are scaled to v's KL."""
    return material.settings["kl_draws" if protocol == "last_token" else "lane_kl_draws"]


def at_equal_kl(
    planned: Sequence[Planned],
    scale: Float[np.ndarray, " lane"],
    kl: Float[np.ndarray, " lane"],
    matched: Sequence[bool],
) -> list[Planned]:
    """Lanes of equal norm at the scales of equal KL."""
    return [
        one.at_scale(
            by, norm_rule="kl", kl_select=float(nats), status="ok" if fits else "unmatched"
        )
        for one, by, nats, fits in zip(planned, scale, kl, matched, strict=True)
    ]
