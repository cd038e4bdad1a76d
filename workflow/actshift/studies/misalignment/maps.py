"""Ridge maps between two models, what they predict, and where they send the donor's direction."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.maths.directions import cosine
from actshift.maths.lasso import group_folds
from actshift.maths.ridge import (
    Folded,
    LowRank,
    chosen_penalty,
    folded,
    held_out,
    low_rank,
    refitted,
    ridge_map,
    row_weights,
    shuffled_orders,
    shuffled_r2,
)
from actshift.random_streams import RIDGE_MAPS

FitOn = Literal["neutral", "with_code"]
FIT_ON: tuple[FitOn, ...] = ("neutral", "with_code")
#: Resamples of an interval.
_RESAMPLES = 2000
#: Below the final layer this share of the shuffled pairings is enough to see a level.
_ELSEWHERE = 10
_States = Float[np.ndarray, "prompt d_model"]


@dataclass(frozen=True, eq=False)
class Side:
    """One untuned model as donor or receiver.

    Attributes:
        pair: Name of the pair.
        architecture: What it shares with a model of the same family.
        states: Last-prompt-token states of all neutral prompts, by layer.
        v: Its own v_insecure of every layer.
    """

    pair: str
    architecture: str
    states: Callable[[int], _States]
    v: Float[np.ndarray, "layer d_model"]

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.v)


@dataclass(frozen=True)
class MapSettings:
    """What decides the maps.

    Attributes:
        folds: Folds of clusters.
        shuffled: Shuffled pairings at the final layer.
        draws: Draws of every null of a direction.
        seed: Of all draws.
    """

    folds: int
    shuffled: int
    draws: int
    seed: int

    def rng(self, *names: str) -> np.random.Generator:
        """A generator of its own for a use, named by strings."""
        return RIDGE_MAPS.rng(self.seed, *(zlib.crc32(name.encode()) for name in names))


@dataclass(frozen=True, eq=False)
class Nulls:
    """Directions that a mapped one is held against, all of the receiver's own norm.

    Attributes:
        mapped_random: Random directions of the donor through the same map.
        shuffled_pairing: The donor's v through maps refitted on shuffled pairs, at the penalty of
            the true map.
        wrong_layer: The donor's v of its other layers through the final map.
        layers: Those layers.
        unmapped: The donor's own final v, not rescaled: a relative where the widths are equal.
    """

    mapped_random: Float[np.ndarray, "draw d_receiver"]
    shuffled_pairing: Float[np.ndarray, "draw d_receiver"]
    wrong_layer: Float[np.ndarray, "layer d_receiver"]
    layers: Int[np.ndarray, " layer"]
    unmapped: Float[np.ndarray, " d_donor"]


@dataclass(frozen=True, eq=False)
class Sent:
    """What one donor sends to the final layer of a receiver.

    Attributes:
        donor: Name of the donor's pair.
        mapped: Its mapped v, by prompts the map is fitted on.
        nulls: Of the map fitted on neutral prompts.
    """

    donor: str
    mapped: dict[FitOn, Float[np.ndarray, " d_model"]]
    nulls: Nulls


@dataclass(frozen=True, eq=False)
class LayerMap:
    """One map.

    Attributes:
        row: Its row of `maps.csv`.
        factors: The map as stored.
        means: Mean states of donor and receiver that it is centred by.
        mapped: The donor's v through it, of the receiver's own norm.
        nulls: At the final layer of the map fitted on neutral prompts.
    """

    row: dict[str, object]
    factors: LowRank
    means: tuple[Float[np.ndarray, " d_donor"], Float[np.ndarray, " d_receiver"]]
    mapped: Float[np.ndarray, " d_receiver"]
    nulls: Nulls | None


def donor_layer(layer: int, *, receiver: int, donor: int) -> int:
    """The donor's block at the same relative depth: round(l (D - 1) / (R - 1)), last to last.

    Args:
        layer: The receiver's block, 0-based.
        receiver: Its number of blocks.
        donor: The donor's.
    """
    return round(layer * (donor - 1) / (receiver - 1)) if receiver > 1 else donor - 1


def rescaled(
    vectors: Float[np.ndarray, "*vector d_model"], norm: float
) -> Float[np.ndarray, "*vector d_model"]:
    """Vectors of a given norm; one that is zero stays zero."""
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * (norm / np.where(size > 0, size, np.inf))


@dataclass(frozen=True, eq=False)
class Fit:
    """A donor's layer, decomposed for all receivers.

    Attributes:
        donor: The donor.
        layer: Its layer.
        fit_on: Name of the prompts.
        rows: Which of the prompts they are.
        clusters: Clusters of those rows.
        source: Their decomposition.
    """

    donor: Side
    layer: int
    fit_on: FitOn
    rows: Bool[np.ndarray, " prompt"]
    clusters: list[str]
    source: Folded


def fit_source(
    donor: Side,
    layer: int,
    fit_on: FitOn,
    rows: Bool[np.ndarray, " prompt"],
    clusters: Sequence[str],
    settings: MapSettings,
) -> Fit:
    """Decompose a donor's states once for all receivers, penalties and pairings.

    Args:
        donor: The donor.
        layer: Its layer.
        fit_on: Name of the prompts that the map is fitted on.
        rows: Which of all neutral prompts they are.
        clusters: Cluster of every neutral prompt.
        settings: Folds.

    Raises:
        ValueError: Fewer than three clusters or folds.
    """
    own = [name for name, kept in zip(clusters, rows, strict=True) if kept]
    _, codes = np.unique(np.asarray(own, dtype=str), return_inverse=True)
    source = folded(donor.states(layer)[rows], group_folds(codes, settings.folds))
    return Fit(donor, layer, fit_on, rows, own, source)


def fit_map(fit: Fit, receiver: Side, layer: int, settings: MapSettings) -> LayerMap:
    """Fit the map into one layer of a receiver, judge it, and send v through it.

    Args:
        fit: The donor's side.
        receiver: The receiver.
        layer: The receiver's layer.
        settings: Draws and seed.
    """
    final = layer == receiver.layers - 1
    name = (fit.donor.pair, receiver.pair, fit.fit_on, str(layer))
    targets = np.asarray(receiver.states(layer)[fit.rows], dtype=np.float64)
    penalty = chosen_penalty(fit.source, targets)
    matrix = ridge_map(fit.source.whole, targets, penalty)
    own, v = receiver.v[layer].astype(np.float64), fit.donor.v[fit.layer].astype(np.float64)
    norm, image = float(np.linalg.norm(own)), v @ matrix
    draws = settings.rng("random", *name[:3]).standard_normal((settings.draws, len(v))) @ matrix
    factors = low_rank(matrix)
    found, null = cosine(image, own), _null_high(draws, own)
    row = {
        "donor": fit.donor.pair,
        "receiver": receiver.pair,
        "same_architecture": fit.donor.architecture == receiver.architecture,
        "layer": layer,
        "depth": layer / max(receiver.layers - 1, 1),
        "fit_on": fit.fit_on,
        **_quality(fit, targets, matrix, final, settings, name),
        "penalty": penalty,
        "rank": factors.rank,
        "cosine": found,
        "cosine_null_high": null,
        "beats_null": bool(found > null),
        "norm_mapped": float(np.linalg.norm(image)),
        "norm_own": norm,
        "status": "ok" if np.isfinite(found) else "not measured",
        "why": None if np.isfinite(found) else "a direction is zero",
    }
    nulls = None
    if final and fit.fit_on == "neutral":
        weights = row_weights(fit.source.whole, v[None], penalty)[0]
        rng = settings.rng("shuffled pairing", *name)
        orders = shuffled_orders(fit.clusters, draws=settings.draws, rng=rng)
        shuffled = refitted(weights, targets, orders)
        nulls = _nulls(fit, matrix, draws, shuffled, norm)
    means = (fit.source.whole.mean, targets.mean(axis=0))
    return LayerMap(row, factors, means, rescaled(image, norm), nulls)


def _null_high(
    draws: Float[np.ndarray, "draw d_receiver"], own: Float[np.ndarray, " d_receiver"]
) -> float:
    """95th percentile of |cos| between the receiver's own v and mapped random directions."""
    sizes = np.linalg.norm(draws, axis=1) * np.linalg.norm(own)
    if not (sizes > 0).all():
        return float("nan")
    return float(np.quantile(np.abs(draws @ own) / sizes, 0.95))


def _quality(
    fit: Fit,
    targets: _States,
    matrix: Float[np.ndarray, "d_donor d_receiver"],
    final: bool,
    settings: MapSettings,
    name: tuple[str, ...],
) -> dict[str, object]:
    """Held-out R^2 by cluster with its interval, in-sample R^2, and the shuffled null."""
    centred = targets - targets.mean(axis=0)
    whole = fit.source.whole
    guess = (whole.left * whole.values) @ (whole.right.T @ matrix)
    judged = held_out(fit.source, targets)
    ends = judged.interval(fit.clusters, draws=_RESAMPLES, rng=settings.rng("interval", *name))
    count = settings.shuffled if final else -(-settings.shuffled // _ELSEWHERE)
    rng = settings.rng("pairing", *name)
    null = shuffled_r2(fit.source, targets, shuffled_orders(fit.clusters, draws=count, rng=rng))
    return {
        "n": len(fit.clusters),
        "clusters": len(set(fit.clusters)),
        "d_donor": matrix.shape[0],
        "d_receiver": matrix.shape[1],
        "r2_fit": float(1 - np.square(centred - guess).sum() / np.square(centred).sum()),
        "r2": judged.r2,
        "r2_low": ends[0],
        "r2_high": ends[1],
        "r2_shuffled": float(np.median(null)),
        "r2_shuffled_high": float(np.quantile(null, 0.95)),
    }


def _nulls(
    fit: Fit,
    matrix: Float[np.ndarray, "d_donor d_receiver"],
    draws: Float[np.ndarray, "draw d_receiver"],
    shuffled: Float[np.ndarray, "draw d_receiver"],
    norm: float,
) -> Nulls:
    v = fit.donor.v.astype(np.float64)
    others = np.array([one for one in range(len(v)) if one != fit.layer], dtype=np.int64)
    return Nulls(
        mapped_random=rescaled(draws, norm),
        shuffled_pairing=rescaled(shuffled, norm),
        wrong_layer=rescaled(v[others] @ matrix, norm),
        layers=others,
        unmapped=v[fit.layer],
    )
