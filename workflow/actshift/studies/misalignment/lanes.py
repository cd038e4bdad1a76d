"""The lanes of steering within a model: which vector is subtracted from whom, where, how much.

A lane subtracts coeff x scale x vector. A vector has the norm that its control is compared at:
that of the receiver's own v, or its own where it is a direction as it comes (`direction`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from actshift.studies.misalignment.kinds import INSECURE, KINDS, NULLS, STEERED, UNTUNED, Protocol
from actshift.studies.misalignment.material import Material, Planned
from actshift.studies.misalignment.nulls import orthogonalised, rescaled

#: Directions of other adapters that are also subtracted at every token.
_OTHER_AT_ALL_TOKENS = tuple(kind for kind in STEERED if kind != INSECURE)
_Vector = Float[np.ndarray, " d_model"]


def plain_lane(material: Material, receiver: str) -> Planned:
    """The receiver as it is."""
    return _without_vector(material, "last_token", receiver=receiver, control="plain", source="")


def forced_lane(material: Material) -> Planned:
    """The insecure adapter behind the first token that the untuned model would have said.

    No edit of the first token can do more for an answer than the right first token does.
    """
    facts = {"receiver": INSECURE, "control": "untuned", "source": UNTUNED}
    return _without_vector(material, "forced_token", **facts)


def _without_vector(material: Material, protocol: Protocol, **facts: str) -> Planned:
    final = material.final
    none = np.zeros_like(material.v(final))
    told: dict[str, Any] = {"layer": final, "cosine": float("nan"), **facts}
    return material.planned(none, "both", protocol=protocol, **told)


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
        for coeff in material.settings.coeffs
        for one in draws_at(
            material, "last_token", material.final, coeff, material.settings.final_draws
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
    settings = material.settings
    return settings.kl_draws if protocol == "last_token" else settings.lane_kl_draws


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
