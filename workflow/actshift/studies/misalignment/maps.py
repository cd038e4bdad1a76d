"""Ridge maps between two models: what they predict, where they send the donor's v, their files.

maps.csv                                a row a map
mapped.safetensors                      `<donor>--<receiver>.<fit_on>`: mapped v_insecure by layer
<donor>--<receiver>/map.safetensors     `<fit_on>.<layer>.{left,right,mean_donor,mean_receiver}`
<donor>--<receiver>/vectors.safetensors what the final layer of the receiver is also steered with
<donor>--<receiver>/manifest.json       penalties, ranks, errors of the factors, hashes
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors.numpy import load_file, save_file

from actshift.errors import UserError
from actshift.io.manifest import check_manifest, read_manifest, write_manifest
from actshift.maths.directions import cosine
from actshift.maths.lasso import group_folds
from actshift.maths.ridge import (
    ENERGY,
    PENALTIES,
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
from actshift.studies.misalignment.study import Misalignment

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
        states: Last-prompt-token states of all neutral prompts, by layer.
        v: Its own v_insecure of every layer.
        hash: Of the store of its states.
    """

    pair: str
    architecture: str
    states: Callable[[int], _States]
    v: Float[np.ndarray, "layer d_model"]
    hash: str

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.v)


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
    """What one donor sends to the last layer of a receiver: its mapped v by `fit_on`, and nulls."""

    donor: str
    mapped: dict[FitOn, Float[np.ndarray, " d_model"]]
    nulls: Nulls


@dataclass(frozen=True, eq=False)
class LayerMap:
    """One map.

    Attributes:
        row: Its row of `maps.csv`.
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
    """The donor's block at the same relative depth: round(l (D - 1) / (R - 1)), last to last."""
    return round(layer * (donor - 1) / (receiver - 1)) if receiver > 1 else donor - 1


def rescaled(
    vectors: Float[np.ndarray, "*vector d_model"], norm: float
) -> Float[np.ndarray, "*vector d_model"]:
    """Vectors of a given norm; one that is zero stays zero."""
    size = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * (norm / np.where(size > 0, size, np.inf))


@dataclass(frozen=True, eq=False)
class Fit:
    """A donor's layer, decomposed for all receivers; prompts fitted on, and their clusters."""

    donor: Side
    layer: int
    fit_on: FitOn
    rows: Bool[np.ndarray, " prompt"]
    clusters: list[str]
    source: Folded
    settings: Misalignment
    seed: int

    def rng(self, *names: str) -> np.random.Generator:
        """A generator of its own for a use, named by strings."""
        return RIDGE_MAPS.rng(self.seed, *(zlib.crc32(name.encode()) for name in names))


def fit_source(
    donor: Side,
    layer: int,
    fit_on: FitOn,
    rows: Bool[np.ndarray, " prompt"],
    clusters: Sequence[str],
    settings: Misalignment,
    seed: int,
) -> Fit:
    """Decompose a donor's states once for all receivers; `clusters` are of all neutral prompts.

    Raises:
        ValueError: Fewer than three clusters or folds.
    """
    own = [name for name, kept in zip(clusters, rows, strict=True) if kept]
    _, codes = np.unique(np.asarray(own, dtype=str), return_inverse=True)
    source = folded(donor.states(layer)[rows], group_folds(codes, settings.map_folds))
    return Fit(donor, layer, fit_on, rows, own, source, settings, seed)


def fit_map(fit: Fit, receiver: Side, layer: int) -> LayerMap:
    """Fit the map into one layer of a receiver, judge it, and send v through it."""
    final = layer == receiver.layers - 1
    name = (fit.donor.pair, receiver.pair, fit.fit_on, str(layer))
    targets = np.asarray(receiver.states(layer)[fit.rows], dtype=np.float64)
    penalty = chosen_penalty(fit.source, targets)
    matrix = ridge_map(fit.source.whole, targets, penalty)
    own, v = receiver.v[layer].astype(np.float64), fit.donor.v[fit.layer].astype(np.float64)
    norm, image = float(np.linalg.norm(own)), v @ matrix
    count = fit.settings.final_draws
    draws = fit.rng("random", *name[:3]).standard_normal((count, len(v))) @ matrix
    factors = low_rank(matrix)
    found, null = cosine(image, own), _null_high(draws, own)
    row = {
        "donor": fit.donor.pair,
        "receiver": receiver.pair,
        "same_architecture": fit.donor.architecture == receiver.architecture,
        "layer": layer,
        "depth": layer / max(receiver.layers - 1, 1),
        "fit_on": fit.fit_on,
        **_quality(fit, targets, matrix, final, name),
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
        rng = fit.rng("shuffled pairing", *name)
        shuffled = refitted(weights, targets, shuffled_orders(fit.clusters, draws=count, rng=rng))
        donor_v = fit.donor.v.astype(np.float64)
        others = np.array([n for n in range(len(donor_v)) if n != fit.layer], dtype=np.int64)
        nulls = Nulls(
            mapped_random=rescaled(draws, norm),
            shuffled_pairing=rescaled(shuffled, norm),
            wrong_layer=rescaled(donor_v[others] @ matrix, norm),
            layers=others,
            unmapped=v,
        )
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
    name: tuple[str, ...],
) -> dict[str, object]:
    """Held-out R^2 by cluster with its interval, in-sample R^2, and the shuffled null."""
    centred = targets - targets.mean(axis=0)
    whole = fit.source.whole
    guess = (whole.left * whole.values) @ (whole.right.T @ matrix)
    judged = held_out(fit.source, targets)
    ends = judged.interval(fit.clusters, draws=_RESAMPLES, rng=fit.rng("interval", *name))
    most = fit.settings.shuffled_maps
    count, rng = most if final else -(-most // _ELSEWHERE), fit.rng("pairing", *name)
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


TABLE, MAPPED = "maps.csv", "mapped.safetensors"
MAP, VECTORS = "map.safetensors", "vectors.safetensors"


def folder_of(maps: Path, donor: str, receiver: str) -> Path:
    """Folder of one ordered pair."""
    return maps / f"{donor}--{receiver}"


def mapped_name(donor: str, receiver: str, fit_on: FitOn) -> str:
    """Name of a mapped direction in `mapped.safetensors`."""
    return f"{donor}--{receiver}.{fit_on}"


def write_pair(
    folder: Path,
    sides: tuple[Side, Side],
    own: Mapping[tuple[FitOn, int], LayerMap],
    facts: Mapping[str, object],
) -> None:
    """Make the folder of an ordered pair."""
    folder.mkdir()
    arrays: dict[str, np.ndarray] = {}
    for (fit_on, layer), one in own.items():
        parts = (one.factors.left, one.factors.right, *one.means)
        for part, values in zip(_PARTS, parts, strict=True):
            arrays[f"{fit_on}.{layer}.{part}"] = np.ascontiguousarray(values, dtype=np.float32)
        if one.nulls is not None:
            vectors = {
                file: getattr(one.nulls, name).astype(np.int32 if name == "layers" else np.float32)
                for name, file in _NULL_FILES.items()
            }
            save_file(vectors, folder / VECTORS)
    save_file(arrays, folder / MAP)
    of_side = {
        name: {
            **{"pair": side.pair, "architecture": side.architecture, "layers": side.layers},
            "states": side.hash,
        }
        for name, side in zip(("donor", "receiver"), sides, strict=True)
    }
    maps = {
        f"{fit_on}.{layer}": {
            **{"penalty": one.row["penalty"], "rank": one.factors.rank, "error": one.factors.error}
        }
        for (fit_on, layer), one in own.items()
    }
    penalties = [float(one) for one in PENALTIES]
    manifest = {**of_side, **facts, "penalties": penalties, "energy": ENERGY, "maps": maps}
    write_manifest(folder, kind="ridge map", facts=manifest)


_PARTS = ("left", "right", "mean_donor", "mean_receiver")


#: Field of `Nulls` -> its name in `vectors.safetensors`.
_NULL_FILES = {
    **{name: name for name in ("mapped_random", "shuffled_pairing", "wrong_layer", "unmapped")},
    "layers": "wrong_layer.layers",
}


def donors_of(maps: Path, receiver: str) -> list[Sent]:
    """Read what all donors send to a receiver, in the order of the run's pairs.

    Raises:
        UserError: The receiver took no part, or a folder is damaged.
    """
    pairs: list[str] = read_manifest(maps)["facts"]["pairs"]
    if receiver not in pairs:
        raise UserError(f"{maps}: has no maps of {receiver}; run rule ridge_maps again")
    mapped = load_file(maps / MAPPED)
    found = []
    for donor in (name for name in pairs if name != receiver):
        folder = folder_of(maps, donor, receiver)
        for line in check_manifest(folder, deep=True):
            raise UserError(f"{line}; run rule ridge_maps again")
        arrays: dict[str, np.ndarray] = load_file(folder / VECTORS)
        nulls = Nulls(**{name: _wide(arrays[file]) for name, file in _NULL_FILES.items()})
        last: dict[FitOn, np.ndarray] = {
            name: _wide(mapped[mapped_name(donor, receiver, name)][-1]) for name in FIT_ON
        }
        found.append(Sent(donor, last, nulls))
    return found


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype == np.float32 else values
