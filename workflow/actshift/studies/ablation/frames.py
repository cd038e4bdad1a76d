"""Frames of one pair, fitted on `fit` prompts, the held-out energy in them, and what they read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from actshift.engine.stores import CONDITIONS, PairStores, StreamReader
from actshift.errors import UserError
from actshift.maths.directions import cosine, did_shift, diff_in_means, naive_shift, template_shift
from actshift.maths.frames import (
    RELEASED_BANDS,
    band_layers,
    column_shares,
    principal_frame,
    random_frame,
    unit_column,
    without,
)
from actshift.maths.ordering import self_cosine
from actshift.maths.spectrum import spectrum
from actshift.prompts.records import Prompt
from actshift.prompts.splits import forbid_heldout
from actshift.random_streams import RANDOM_FRAMES, SELF_COSINES
from actshift.studies.ablation.study import Ablation
from actshift.vocab import Role, Split, Template

#: Frames fitted on data, in the order of the tables; `random` is drawn.
FrameName = Literal["naive", "template", "did", "template_harmless", "activation"]
FRAMES: tuple[FrameName, ...] = ("naive", "template", "did", "template_harmless", "activation")
#: Frames whose directions are taken one by one.
DIRECTION_FRAMES: tuple[FrameName, ...] = ("template", "did")
#: Resamples behind `self_cosine`.
SELF_COSINE_DRAWS = 100
#: Whose refusal direction is ablated: the tuned model's, the base's own, the tuned one without it.
OLD_OR_NEW = ("tuned", "base", "new")
#: Streams that frames are fitted on.
STREAMS: tuple[tuple[Role, Template], ...] = (("tuned", "chat"), ("base", "chat"), ("base", "raw"))
Rows = Float[np.ndarray, "prompt d_model"]
_Streams = Mapping[tuple[Role, Template, str], Rows]


class Activations:
    """Last-prompt-token activations of one pair, by layer, stream and prompts."""

    def __init__(self, stores: PairStores, sets: Mapping[str, str]) -> None:
        """Open the streams; `sets` names the prompt set of each condition.

        Raises:
            UserError: The two models differ in depth.
        """
        self._readers: dict[tuple[Role, Template, str], StreamReader] = {
            (role, template, condition): stores.open(role, sets[condition], template)
            for role, template in STREAMS
            for condition in CONDITIONS
        }
        depths = {len(reader.layers) for reader in self._readers.values()}
        if len(depths) != 1:
            raise UserError("ablation: base and tuned have different depths; a pair needs one")
        self.depth = depths.pop()

    def read(
        self, layer: int, role: Role, template: Template, condition: str, prompts: Sequence[Prompt]
    ) -> Rows:
        """Rows in the order of the prompts, float64."""
        reader = self._readers[role, template, condition]
        rows = reader.read(layer, -1, [prompt.id for prompt in prompts])
        return np.asarray(rows, dtype=np.float64)


def of_split(prompts: Sequence[Prompt], split: Split, condition: str) -> list[Prompt]:
    """The prompts of one condition and split.

    Raises:
        UserError: There are fewer than two.
    """
    chosen = _members(prompts, split, condition)
    if len(chosen) < 2:
        raise UserError(
            f"ablation: {len(chosen)} '{condition}' prompts in the split {split}; at least 2 are "
            "needed, add prompts or other split shares"
        )
    return chosen


def balanced(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most `most` prompts, clusters served in turn, each in file order.

    The first prompt of every cluster, then the second of every cluster, and so on: the counts of
    two clusters differ by more than one only where a cluster has run out.
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
    chosen = _members(prompts, split, condition)
    if not chosen:
        raise UserError(
            f"ablation: the prompt set '{prompt_set}' has no '{condition}' prompts in the split "
            f"{split}; add some or other split shares"
        )
    return balanced(chosen, most)


def _members(prompts: Sequence[Prompt], split: Split, condition: str) -> list[Prompt]:
    return [p for p in prompts if p.split == split and p.condition == condition]


@dataclass(frozen=True)
class Frame:
    """Orthonormal columns a layer, and the held-out energy along each of them.

    Attributes:
        name: `template`, `random`, ...
        bases: By layer, `[d_model, component]`.
        shares: By (energy, layer), `[component]`; energies are `harmful`, `harmless` (held-out
            tuned-chat activations) and `shift` (held-out harmful template shift).
        draw: Number of the draw, for a random frame.
    """

    name: str
    bases: Mapping[int, Float[np.ndarray, "d_model component"]]
    shares: Mapping[tuple[str, int], Float[np.ndarray, " component"]]
    draw: int | None = None

    def width(self, layers: Sequence[int]) -> int:
        """Columns that every one of the layers has."""
        return min(self.bases[layer].shape[1] for layer in layers)


@dataclass(frozen=True)
class Fitted:
    """Everything that lanes are made of.

    Attributes:
        bands: Layers by band.
        d_model: Width of the residual stream.
        named: Fitted frames by name.
        drawn: Random frames.
        contrasts: The refusal directions of `OLD_OR_NEW`, frames of one column.
        cosines: |cos| of each of them with the tuned one, by (direction, layer).
        centres: Mean tuned-chat activation of harmless fit prompts, by layer.
        directions: Rows of `directions.csv`.
    """

    bands: dict[str, tuple[int, ...]]
    d_model: int
    named: dict[FrameName, Frame]
    drawn: tuple[Frame, ...]
    contrasts: dict[str, Frame]
    cosines: dict[tuple[str, int], float]
    centres: dict[int, Float[np.ndarray, " d_model"]]
    directions: list[dict[str, object]]


@dataclass(frozen=True)
class FitLayer:
    """What is fitted at one layer, from `fit` prompts alone."""

    named: dict[FrameName, Float[np.ndarray, "d_model component"]]
    contrasts: dict[str, Float[np.ndarray, "d_model 1"]]
    cosines: dict[str, float]
    centre: Float[np.ndarray, " d_model"]
    directions: list[dict[str, object]]


def bands_of(depth: int) -> dict[str, tuple[int, ...]]:
    """The narrow and the wide band of a model of some depth; repeated layers count once.

    Source: arXiv 2605.24583 released code (`band_layers`), without the bands printed in the paper.
    """
    bands = band_layers(depth)
    return {name: bands[name] for name in RELEASED_BANDS}


def fit_pair(
    acts: Activations, prompts: Mapping[str, Sequence[Prompt]], settings: Ablation, *, seed: int
) -> Fitted:
    """Fit every frame on `fit` prompts and measure its energy on `heldout` ones.

    `prompts` are in file order, by condition.

    Raises:
        UserError: Too few prompts, or the models' shapes differ.
    """
    parts = {
        split: {name: of_split(prompts[name], split, name) for name in CONDITIONS}
        for split in ("fit", "heldout")
    }
    bands = bands_of(acts.depth)
    layers = sorted({layer for band in bands.values() for layer in band})
    fitted = {layer: fit_layer(acts, parts["fit"], layer, settings, seed=seed) for layer in layers}
    d_model = len(fitted[layers[0]].centre)
    drawn = _random_bases(layers, d_model, settings, seed)
    energies = {layer: _heldout_rows(acts, parts["heldout"], layer) for layer in layers}

    def frame(name: str, bases: Mapping[int, np.ndarray], draw: int | None = None) -> Frame:
        shares = {
            (energy, layer): column_shares(rows, bases[layer])
            for layer in layers
            for energy, rows in energies[layer].items()
        }
        return Frame(name, bases, shares, draw)

    first = fitted[layers[0]]
    return Fitted(
        bands=bands,
        d_model=d_model,
        named={
            name: frame(name, {n: fitted[n].named[name] for n in layers}) for name in first.named
        },
        drawn=tuple(frame("random", bases, draw) for draw, bases in enumerate(drawn)),
        contrasts={
            name: frame("refusal_direction", {n: fitted[n].contrasts[name] for n in layers})
            for name in OLD_OR_NEW
        },
        cosines={(name, n): fitted[n].cosines[name] for name in OLD_OR_NEW for n in layers},
        centres={n: fitted[n].centre for n in layers},
        directions=[row for n in layers for row in fitted[n].directions],
    )


def fit_layer(
    acts: Activations,
    prompts: Mapping[str, Sequence[Prompt]],
    layer: int,
    settings: Ablation,
    *,
    seed: int,
) -> FitLayer:
    """Fit the frames, the refusal directions and the centre of one layer.

    Raises:
        HeldoutLeakError: A prompt is held out.
        UserError: A refusal direction is zero.
    """
    for condition in CONDITIONS:
        forbid_heldout(prompts[condition], where=f"ablation, frames of layer {layer}")
    rows: dict[tuple[Role, Template, str], np.ndarray] = {
        (role, template, condition): acts.read(layer, role, template, condition, prompts[condition])
        for role, template in STREAMS
        for condition in CONDITIONS
    }
    shifts = _shifts(rows)
    k = max(*settings.ks, settings.directions)
    named: dict[FrameName, np.ndarray] = {
        name: principal_frame(shift, k=k) for name, shift in shifts.items()
    }
    harmless = rows["tuned", "chat", "harmless"]
    named["activation"] = principal_frame(harmless, k=k, centered=True)
    contrasts = _contrasts(rows, layer)
    clusters = [prompt.cluster for prompt in prompts["harmful"]]
    return FitLayer(
        named=named,
        contrasts={name: unit_column(vector) for name, vector in contrasts.items()},
        cosines={name: abs(cosine(v, contrasts["tuned"])) for name, v in contrasts.items()},
        centre=harmless.mean(axis=0),
        directions=_direction_rows(shifts, clusters, layer, settings.directions, seed),
    )


def _shifts(rows: _Streams) -> dict[FrameName, Rows]:
    """The shift matrices whose singular vectors are frames."""
    template, control = (
        template_shift(rows["tuned", "chat", name], rows["base", "chat", name])
        for name in CONDITIONS
    )
    return {
        "naive": naive_shift(rows["tuned", "chat", "harmful"], rows["base", "raw", "harmful"]),
        "template": template,
        "did": did_shift(template, control),
        "template_harmless": control,
    }


def _contrasts(rows: _Streams, layer: int) -> dict[str, Float[np.ndarray, " d_model"]]:
    """Harmful minus harmless mean of the tuned model, of the base, and the tuned one without it."""
    tuned, base = (
        diff_in_means(rows[role, "chat", "harmful"], rows[role, "chat", "harmless"])
        for role in ("tuned", "base")
    )
    contrasts = {"tuned": tuned, "base": base, "new": without(tuned, base)}
    for name, vector in contrasts.items():
        if not np.any(vector):
            raise UserError(
                f"ablation: the {name} harmful-harmless difference of layer {layer} is zero, so "
                "there is no direction to ablate; are the two prompt sets the same?"
            )
    return contrasts


def _direction_rows(
    shifts: Mapping[FrameName, Rows],
    clusters: Sequence[str],
    layer: int,
    most: int,
    seed: int,
) -> list[dict[str, object]]:
    """Rows of `directions.csv`: how strong and how definite each direction is."""
    rows: list[dict[str, object]] = []
    for number, name in enumerate(DIRECTION_FRAMES):
        rng = SELF_COSINES.rng(seed, layer, number)
        count = min(most, *shifts[name].shape)
        values = spectrum(shifts[name]).values
        energy = np.square(values) / max(float(np.sum(np.square(values))), np.finfo(float).tiny)
        cosines = self_cosine(shifts[name], clusters, k=count, draws=SELF_COSINE_DRAWS, rng=rng)
        rows += [
            {
                "frame": name,
                "layer": layer,
                "direction": i + 1,
                "singular_value": float(values[i]),
                "share": float(energy[i]),
                "self_cosine": float(cosines[i]),
            }
            for i in range(count)
        ]
    return rows


def _random_bases(
    layers: Sequence[int], d_model: int, settings: Ablation, seed: int
) -> list[dict[int, Float[np.ndarray, "d_model component"]]]:
    """Random frames, each layer its own; a draw does not depend on how many are drawn."""
    k = max([k for k in settings.ks if k <= d_model], default=1)
    return [
        {layer: random_frame(d_model, k, RANDOM_FRAMES.rng(seed, draw, layer)) for layer in layers}
        for draw in range(max(settings.random_draws, settings.patch_draws))
    ]


def _heldout_rows(
    acts: Activations, prompts: Mapping[str, Sequence[Prompt]], layer: int
) -> dict[str, Rows]:
    """Held-out activations and shift; they are measured and nothing is fitted to them."""
    tuned = {name: acts.read(layer, "tuned", "chat", name, prompts[name]) for name in CONDITIONS}
    base = acts.read(layer, "base", "chat", "harmful", prompts["harmful"])
    return {**tuned, "shift": template_shift(tuned["harmful"], base)}
