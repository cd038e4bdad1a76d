"""The lanes of steering: which vector is subtracted from whom, where and how much.

A lane subtracts coeff x scale x vector. A vector has the norm that its control is compared at:
that of the receiver's own v, or its own where it is a direction as it comes (`direction`).
Nulls are functions of a seed and their place alone: the first draws stay when more are drawn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file

from actshift.edits import Lane, Placed, Steer
from actshift.errors import UserError
from actshift.maths.directions import cosine, mean_shift
from actshift.maths.frames import without
from actshift.prompts.records import Prompt
from actshift.random_streams import DIRECTION_NULLS
from actshift.studies.misalignment.choose import equal_kl
from actshift.studies.misalignment.kinds import INSECURE, KINDS, NULLS, STEERED, UNTUNED, Protocol
from actshift.studies.misalignment.study import Misalignment

#: File of the directions in the folder of rule spillover.
DIRECTIONS = "directions.safetensors"
#: Which questions a lane is asked: `select` and `heldout`, or `heldout` alone.
AskedOf = Literal["both", "heldout"]
_Vector = Float[np.ndarray, " d_model"]
_Draws = Float[np.ndarray, "draw d_model"]


@dataclass(frozen=True, eq=False)
class LayerStates:
    """States of one layer at the last prompt token, a row a question; clusters count from 0."""

    chat: Float[np.ndarray, "prompt d_model"]
    adapter: Float[np.ndarray, "prompt d_model"]
    cluster: Int[np.ndarray, " prompt"]

    @property
    def direction(self) -> _Vector:
        """The direction v = mean(adapter) - mean(chat), float64.

        Source: arXiv 2606.20225 (raw norm kept).
        """
        return mean_shift(self.adapter, self.chat)

    @property
    def shifts(self) -> Float[np.ndarray, "prompt d_model"]:
        """h_adapter - h_chat of each question, float64."""
        return self.adapter.astype(np.float64) - self.chat


def rescaled(rows: _Draws, norm: float) -> _Draws:
    """Each row at a norm: x norm / ||x||.

    Raises:
        ValueError: A row is zero and has no direction.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("a zero vector has no direction to be rescaled")
    return rows * (norm / lengths)


def orthogonalised(vector: _Vector, v: _Vector) -> _Vector:
    """A vector without its part along v, at the vector's own norm.

    Raises:
        ValueError: Nothing is left.
    """
    left = without(np.asarray(vector, dtype=np.float64), np.asarray(v, dtype=np.float64))
    return rescaled(left[None], float(np.linalg.norm(vector)))[0]


def null_draws(
    name: str, v: _Vector, states: LayerStates, *, draws: int, seed: int, layer: int
) -> _Draws:
    """Draws of one null, at the norm of v.

    - `random`: isotropic Gaussian.
    - `random_span`: sum_p z_p (h_p - mean h), z Gaussian, over the adapter's states: as wide as
      activations are.
    - `orthogonal`: isotropic without the part along v.
    - `shuffled`: mean_p s_c(p) (h_adapter,p - h_chat,p - v) with a fair sign s for each cluster
      c: v with the labels of the two models exchanged at random, less mean_p(s) v. That part is
      kept out because it rules whatever is rescaled to the norm of v: with it the draws of real
      adapters had a cosine of -.98 or .98 with v, and were v itself.

    Another layer has other draws; `states` are of the questions that v was made from.

    Raises:
        ValueError: Unknown name, or a draw without direction.

    Source: arXiv 2606.20225 (`random`, `orthogonal`); the other two are of this project.
    """
    rng = DIRECTION_NULLS.rng(seed, NULLS.index(name), layer)
    norm = float(np.linalg.norm(v))
    if name == "random_span":
        adapter = states.adapter.astype(np.float64)
        centred = adapter - adapter.mean(axis=0)
        return rescaled(rng.standard_normal((draws, len(centred))) @ centred, norm)
    if name == "shuffled":
        clusters = int(states.cluster.max()) + 1
        signs = rng.choice([-1.0, 1.0], size=(draws, clusters))
        left = states.shifts - states.direction
        return rescaled(signs[:, states.cluster] @ left, norm)
    rows = rng.standard_normal((draws, len(v)))
    if name == "orthogonal":
        unit = np.asarray(v, dtype=np.float64) / norm
        rows -= (rows @ unit)[:, None] * unit
    return rescaled(rows, norm)


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
        fit_on: Prompts that the map behind a vector is fitted on; none without a map.
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
    fit_on: str = "none"


@dataclass(frozen=True, eq=False)
class Planned:
    """A lane: its facts, its vector before coefficient and scale, and which splits it is asked."""

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
        return Lane(self.facts.control, (Placed(steer, self.facts.layer, positions="all"),))


@dataclass(frozen=True, eq=False)
class Material:
    """What lanes are made of.

    Attributes:
        directions: v of every adapter of the pair.
        states: Of the insecure adapter, by layer.
    """

    pair: str
    directions: Mapping[str, Float[np.ndarray, "layer d_model"]]
    states: Mapping[int, LayerStates]
    settings: Misalignment
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
        asked = self.settings
        most = max(asked.lane_draws, asked.kl_draws, asked.lane_kl_draws)
        if layer == self.final:
            most = max(most, asked.final_draws)
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
        return [self.planned(vector, asked, coeff=coeff, **facts) for coeff in self.settings.coeffs]


def read_directions(spillover: Path) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """The directions that rule spillover left, by adapter.

    Raises:
        UserError: The file or the insecure adapter's direction is missing.
    """
    path = spillover / DIRECTIONS
    if not path.is_file():
        raise UserError(f"{path}: missing; run rule spillover again")
    directions = load_file(path)
    if INSECURE not in directions:
        raise UserError(f"{path}: has no direction '{INSECURE}'; run rule spillover again")
    return directions


def check_directions(
    directions: Mapping[str, Float[np.ndarray, "layer d_model"]], *, where: Path
) -> None:
    """Refuse directions that lanes cannot be made of.

    Raises:
        UserError: One is zero at some layer.
    """
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


def plain_lane(material: Material, receiver: str = INSECURE) -> Planned:
    """The receiver as it is."""
    facts = {"receiver": receiver, "control": "plain", "source": "", "cosine": float("nan")}
    none = np.zeros_like(material.v(material.final))
    return material.planned(none, "both", protocol="last_token", layer=material.final, **facts)


def forced_lane(material: Material) -> Planned:
    """The insecure adapter behind the first token that the untuned model would have said.

    No edit of the first token can do more for an answer than the right first token does.
    """
    plain = plain_lane(material)
    facts = {"protocol": "forced_token", "control": "untuned", "source": UNTUNED}
    return replace(plain, facts=replace(plain.facts, **facts))


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
        lane
        for source in (INSECURE, receiver)
        for lane in material.at_all_coeffs(
            material.v(layer, source), "both", source=source, **facts
        )
    ]


def relatives(material: Material, protocol: Protocol) -> Iterator[Planned]:
    """Directions of other adapters, for the edit of the last token also of all other layers.

    At the norm of v, as they are and without their part along v. At every token the adapters that
    content is held against are enough.
    """
    final, last = material.final, protocol == "last_token"
    v = material.v(final)
    layers = [layer for layer in range(material.depth) if last and layer != final]
    kinds = [kind for kind in (KINDS if last else STEERED) if kind in material.directions]
    others = {("wrong_layer", f"layer {layer}"): material.v(layer) for layer in layers} | {
        ("other_adapter", kind): material.v(final, kind) for kind in kinds if kind != INSECURE
    }
    for (control, source), vector in others.items():
        raw = rescaled(vector[None], float(np.linalg.norm(v)))[0]
        facts = {"protocol": protocol, "control": control, "source": source, "layer": final}
        yield from material.at_all_coeffs(raw, **facts)
        yield from material.at_all_coeffs(orthogonalised(raw, v), orthogonal=True, **facts)


def draws_at(
    material: Material, protocol: Protocol, layer: int, coeff: float, draws: int
) -> list[Planned]:
    """Draws of every null at one coefficient and equal norm."""
    facts = {"protocol": protocol, "layer": layer, "coeff": coeff}
    return [
        material.planned(vector, control=name, draw=draw, **facts)
        for name in NULLS
        for draw, vector in enumerate(material.null(name, layer, draws))
    ]


def at_equal_kl(
    planned: Sequence[Planned],
    divergence: Callable[[Int[np.ndarray, " open"], Float[np.ndarray, " open"]], Any],
    target: Float[np.ndarray, " lane"],
    prompts: Sequence[Prompt],
    *,
    max_scale: float,
) -> list[Planned]:
    """Lanes of equal norm at the scales of equal KL: see `equal_kl`."""
    found = equal_kl(divergence, target, prompts, max_scale=max_scale)
    return [
        lane.at_scale(
            scale, norm_rule="kl", kl_select=float(kl), status="ok" if matched else "unmatched"
        )
        for lane, scale, kl, matched in zip(
            planned, found.scale, found.kl, found.matched.tolist(), strict=True
        )
    ]
