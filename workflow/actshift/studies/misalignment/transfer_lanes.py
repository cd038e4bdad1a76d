"""The lanes of steering across models: what every donor sends, its nulls and its relatives.

All vectors have the norm of the receiver's own v at its last block, where the edit acts. Random
and orthogonal directions of that norm are the receiver's own nulls (`steering`), not repeated here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from actshift.maths.directions import cosine
from actshift.studies.misalignment.kinds import INSECURE, MAPPED_NULLS
from actshift.studies.misalignment.maps import FIT_ON, FitOn, Sent
from actshift.studies.misalignment.material import AskedOf, LaneFacts, Planned
from actshift.studies.misalignment.nulls import orthogonalised, rescaled
from actshift.studies.misalignment.study import Misalignment

#: Prompts that the map of nulls and relatives is fitted on.
PRIMARY: FitOn = "neutral"
#: `fit_on` of lanes without a map.
NO_MAP = "none"
_Vector = Float[np.ndarray, " d_model"]


@dataclass(frozen=True)
class TransferFacts(LaneFacts):
    """One row of `lanes.parquet` of a transfer, without its number.

    Attributes:
        fit_on: Prompts that the map is fitted on; none without a map.
    """

    fit_on: str = NO_MAP


@dataclass(frozen=True, eq=False)
class Receiver:
    """Who is edited.

    Attributes:
        pair: Name of its pair.
        v: Its own v_insecure at the last block, float64.
        layer: That block.
        coeffs: Multiples of a vector.
    """

    pair: str
    v: _Vector
    layer: int
    coeffs: Sequence[float]

    @property
    def norm(self) -> float:
        """What every vector is scaled to."""
        return float(np.linalg.norm(self.v))

    def planned(self, vector: _Vector, asked: AskedOf, **facts: Any) -> Planned:
        """A lane of the insecure adapter's last token."""
        named = {"donor": self.pair, "source": INSECURE, "cosine": cosine(vector, self.v), **facts}
        where = {"protocol": "last_token", "receiver": INSECURE, "layer": self.layer}
        return Planned(TransferFacts(**where, **named), vector, asked)

    def at_all_coeffs(self, vector: _Vector, asked: AskedOf, **facts: Any) -> Iterator[Planned]:
        """One lane a coefficient."""
        found = cosine(vector, self.v)
        for coeff in self.coeffs:
            yield self.planned(vector, asked, coeff=coeff, cosine=found, **facts)


def plain_lane(receiver: Receiver) -> Planned:
    """The receiver as it is."""
    unknown = float("nan")
    return receiver.planned(
        np.zeros_like(receiver.v), "both", control="plain", source="", cosine=unknown
    )


def mapped_lanes(receiver: Receiver, sent: Sent) -> list[Planned]:
    """The donor's v through the map, fitted on either set of prompts."""
    return [
        one
        for fit_on in FIT_ON
        for one in receiver.at_all_coeffs(
            _wide(sent.mapped[fit_on]), "both", donor=sent.donor, control="mapped", fit_on=fit_on
        )
    ]


def relative_lanes(receiver: Receiver, sent: Sent) -> list[Planned]:
    """The donor's v of other layers, and its v without a map where the widths are equal.

    Each as it is and without its part along the mapped v.
    """
    mapped = _wide(sent.mapped[PRIMARY])
    found: list[Planned] = []
    for vector, facts in _relatives(receiver, sent):
        both = ((vector, False), (orthogonalised(vector, mapped), True))
        for one, orthogonal in both:
            found += receiver.at_all_coeffs(
                one, "both", donor=sent.donor, orthogonal=orthogonal, **facts
            )
    return found


def _relatives(receiver: Receiver, sent: Sent) -> Iterator[tuple[_Vector, dict[str, str]]]:
    for layer, vector in zip(sent.nulls.layers, sent.nulls.wrong_layer, strict=True):
        if np.any(vector):
            facts = {"control": "wrong_layer", "source": f"layer {layer}", "fit_on": PRIMARY}
            yield _wide(vector), facts
    unmapped = _wide(sent.nulls.unmapped)
    if unmapped.shape == receiver.v.shape and np.any(unmapped):
        yield rescaled(unmapped[None], receiver.norm)[0], {"control": "wrong_source"}


def null_lanes(receiver: Receiver, sent: Sent, draws: Mapping[float, int]) -> list[Planned]:
    """Draws of both nulls of a mapped direction, coefficient by coefficient, held-out questions.

    Args:
        receiver: Who is edited.
        sent: What the donor sends.
        draws: Of each null, by coefficient; no more than were made with the maps.
    """
    return [
        receiver.planned(
            _wide(vector),
            "heldout",
            coeff=coeff,
            donor=sent.donor,
            control=name,
            draw=draw,
            fit_on=PRIMARY,
        )
        for coeff, each in draws.items()
        for name in MAPPED_NULLS
        for draw, vector in enumerate(getattr(sent.nulls, name)[:each])
    ]


def draws_by_coeff(settings: Misalignment, chosen: float) -> dict[float, int]:
    """How many draws of a mapped null every coefficient gets: most at the chosen one."""
    most = settings.final_draws
    other = min(most, settings.other_draws)
    return {coeff: most if coeff == chosen else other for coeff in settings.coeffs}


def kl_targets(mapped: Sequence[Planned], lanes: Sequence[Planned]) -> Float[np.ndarray, " lane"]:
    """KL of the mapped v, by the map of `PRIMARY`, at the coefficient of each lane.

    Args:
        mapped: Of `mapped_lanes`, their `kl_select` measured.
        lanes: Draws at equal norm that are to be scaled to it.
    """
    facts = [one.facts for one in mapped]
    own = {one.coeff: one.kl_select for one in facts if fit_on_of(one) == PRIMARY}
    return np.array([own[one.facts.coeff] for one in lanes], dtype=np.float64)


def fit_on_of(facts: LaneFacts) -> str:
    """Prompts that the map behind a lane is fitted on; none without a map."""
    return facts.fit_on if isinstance(facts, TransferFacts) else NO_MAP


def _wide(vector: Float[np.ndarray, " d_model"]) -> _Vector:
    return np.asarray(vector, dtype=np.float64)
