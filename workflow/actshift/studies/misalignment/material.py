"""What the lanes of steering within a model are made of: facts, vectors, directions and states."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from actshift.edits import Lane, Placed, Steer
from actshift.errors import UserError
from actshift.maths.directions import cosine
from actshift.studies.misalignment.kinds import INSECURE, Protocol
from actshift.studies.misalignment.nulls import LayerStates, null_draws
from actshift.studies.misalignment.study import Misalignment

#: Which questions a lane is asked: `select` and `heldout`, or `heldout` alone.
AskedOf = Literal["both", "heldout"]
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
        settings: Of the study.
        seed: Of the run.
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
