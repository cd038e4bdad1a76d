"""The lanes of every experiment and one row of facts about each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from actshift.edits import Ablate, Edit, Lane, Patch, Placed
from actshift.maths.frames import subset_share
from actshift.studies.ablation.frames import (
    DIRECTION_FRAMES,
    OLD_OR_NEW,
    Fitted,
    Frame,
    FrameName,
)
from actshift.studies.ablation.study import Ablation

#: Columns of `lanes.csv`.
LANES = (
    *("lane", "experiment", "frame", "edit", "band", "layers", "k", "d", "draw", "directions"),
    *("energy_harmful", "energy_harmless", "shift_share", "cos_with_tuned"),
)
#: Frames of the experiments that patch.
PATCH_FRAMES: tuple[FrameName, ...] = ("template", "did", "template_harmless")
#: Directions whose pairs and leave-one-out sets are ablated.
COMBINED = 5
Experiment = Literal["sweep", "direction", "old_or_new", "substitution", "mode_toggle"]
EditName = Literal["zero", "mean", "patch"]
_ABLATIONS: tuple[EditName, ...] = ("zero", "mean")
_Facts = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A lane and its row of `lanes.csv`."""

    lane: Lane
    facts: _Facts


def sweep(fitted: Fitted, settings: Ablation) -> list[Planned]:
    """Leading k directions of every frame, both bands, projected to zero and to the mean.

    Source: arXiv 2605.24583, Test 2 (frame naive or template, edit zero, one random draw).
    """
    frames = [*fitted.named.values(), *fitted.drawn[: settings.random_draws]]
    # Bands outermost: lanes that begin at one layer share the blocks below it.
    return [
        _planned(fitted, "sweep", frame, band=band, edit=edit, columns=np.arange(k))
        for band, layers in fitted.bands.items()
        for frame in frames
        for edit in _ABLATIONS
        for k in _fitting(settings.ks, fitted, frame, layers)
    ]


def single_directions(fitted: Fitted, settings: Ablation) -> list[Planned]:
    """Each direction alone; pairs and leave-one-out sets of the leading ones; narrow band, zero.

    All of the leading ones together are a lane of the sweep.

    Source: arXiv 2605.24583, causal ordering (singles); the combinations are named there, not run.
    """
    planned = []
    for name in DIRECTION_FRAMES:
        frame = fitted.named[name]
        width = frame.width(fitted.bands["narrow"])
        top = range(min(COMBINED, width))
        sets = [(i,) for i in range(min(settings.directions, width))]
        sets += list(combinations(top, 2))
        if len(top) > 3:  # of three directions, leaving one out leaves a pair
            sets += list(combinations(top, len(top) - 1))
        planned += [
            _planned(
                fitted, "direction", frame, band="narrow", edit="zero", columns=np.array(columns)
            )
            for columns in sets
        ]
    return planned


def old_or_new(fitted: Fitted) -> list[Planned]:
    """The tuned model's refusal direction, the base's own, and the tuned one without the base's."""
    first, contrasts = np.arange(1), fitted.contrasts
    return [
        _planned(
            fitted,
            "old_or_new",
            contrasts[name],
            band=band,
            edit=edit,
            columns=first,
            directions=name,
        )
        for name in OLD_OR_NEW
        for band in fitted.bands
        for edit in _ABLATIONS
    ]


def patches(fitted: Fitted, settings: Ablation, experiment: Experiment) -> list[Planned]:
    """The donor's activation in the span of the leading k directions, the receiver's elsewhere.

    `substitution` (receiver tuned): h <- (I - P_k) h_tuned + P_k h_base. `mode_toggle` (receiver
    base): h <- h_base + P_k (h_tuned - h_base). Both are one edit with the models exchanged. The
    frame `whole` (k = d) hands over everything at the band's layers: what no P_k can exceed.

    Source: arXiv 2605.24583, Propositions 1 (strong form) and 2.
    """
    frames = [fitted.named[name] for name in PATCH_FRAMES]
    frames += fitted.drawn[: settings.patch_draws]
    planned = [
        _planned(fitted, experiment, frame, band=band, edit="patch", columns=np.arange(k))
        for band, layers in fitted.bands.items()
        for frame in frames
        for k in _fitting(settings.ks, fitted, frame, layers)
    ]
    return planned + [_whole(fitted, experiment, band) for band in fitted.bands]


def published(planned: Sequence[Planned]) -> list[Planned]:
    """Lanes that are also run on the fitted prompts, as published: zero edit, one random draw."""
    return [
        lane
        for lane in planned
        if lane.facts["experiment"] == "sweep"
        and lane.facts["edit"] == "zero"
        and lane.facts["draw"] in (None, 0)
    ]


def with_plain(planned: Sequence[Planned]) -> list[Lane]:
    """The lanes of an experiment, the unedited model first."""
    return [Lane("plain"), *(lane.lane for lane in planned)]


def _fitting(
    ks: Sequence[int], fitted: Fitted, frame: Frame, layers: Sequence[int]
) -> Iterator[int]:
    """The k that the frame has columns for at every layer of the band."""
    return (k for k in ks if k <= min(fitted.d_model, frame.width(layers)))


def _planned(
    fitted: Fitted,
    experiment: Experiment,
    frame: Frame,
    *,
    band: str,
    edit: EditName,
    columns: Int[np.ndarray, " column"],
    directions: str | None = None,
) -> Planned:
    """A lane that edits some columns of a frame at the layers of a band."""
    layers = fitted.bands[band]
    if experiment == "direction":
        directions = "+".join(str(i + 1) for i in columns)
    what = f"k{len(columns)}" if directions is None else directions
    draw = [] if frame.draw is None else [f"draw{frame.draw}"]

    def share(energy: str) -> float:
        shares = [subset_share(frame.shares[energy, layer], columns) for layer in layers]
        return float(np.mean(shares))

    facts: _Facts = {
        "lane": ".".join([experiment, frame.name, band, edit, what, *draw]),
        "experiment": experiment,
        "frame": frame.name,
        "edit": edit,
        "k": len(columns),
        "draw": frame.draw,
        "directions": directions,
        "energy_harmful": share("harmful"),
        "energy_harmless": share("harmless"),
        "shift_share": share("shift"),
    }
    if directions in OLD_OR_NEW:
        cosines = [fitted.cosines[directions, layer] for layer in layers]
        facts["cos_with_tuned"] = float(np.mean(cosines))
    return _at_layers(fitted, band, facts, _edit_maker(fitted, frame, edit, columns))


def _whole(fitted: Fitted, experiment: Experiment, band: str) -> Planned:
    """The donor's whole activation at the layers of a band."""
    k = fitted.d_model
    facts: _Facts = {
        "lane": f"{experiment}.whole.{band}.patch.k{k}",
        "experiment": experiment,
        "frame": "whole",
        "edit": "patch",
        "k": k,
        "draw": None,
        **{share: 1.0 for share in ("energy_harmful", "energy_harmless", "shift_share")},
    }
    return _at_layers(fitted, band, facts, lambda _: Patch())


def _at_layers(fitted: Fitted, band: str, facts: _Facts, make: Callable[[int], Edit]) -> Planned:
    """The lane of an edit at every layer of a band, and its row."""
    layers = fitted.bands[band]
    where = {"band": band, "layers": " ".join(map(str, layers)), "d": fitted.d_model}
    edits = tuple(Placed(make(layer), layer) for layer in layers)
    return Planned(Lane(facts["lane"], edits, draw=facts["draw"]), facts | where)


def _edit_maker(
    fitted: Fitted, frame: Frame, edit: EditName, columns: Int[np.ndarray, " column"]
) -> Callable[[int], Edit]:
    """What is done at a layer; leading columns stay a view, so that all k share one array."""
    leading = np.array_equal(columns, np.arange(len(columns)))

    def make(layer: int) -> Edit:
        basis = frame.bases[layer]
        basis = basis[:, : len(columns)] if leading else basis[:, columns]
        if edit == "patch":
            return Patch(1.0, basis)
        return Ablate(basis, centre=fitted.centres[layer] if edit == "mean" else None)

    return make
