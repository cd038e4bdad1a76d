"""Table `controls`: what is patched in place of the donor's states, beside the patch itself."""

import numpy as np
from jaxtyping import Float

from actshift.studies.localization.settings import DIRECTIONS
from actshift.studies.localization.tables.effects import Effects, Rows, Sample
from actshift.studies.localization.tables.inputs import Lanes
from actshift.studies.localization.tables.patching import patch_lanes

CONTROLS = ("identity", "noise", "random", "shuffled", "other_condition", "whole_head")


def control_rows(sample: Sample) -> Rows:
    """One row a direction, control, choice of positions and layer.

    Args:
        sample: Of a cell.
    """
    rows: Rows = []
    for direction in DIRECTIONS:
        for control in CONTROLS:
            ran = sample.cell.patches.where(experiment=control, direction=direction)
            for positions in ran.values("positions"):
                lanes = ran.where(positions=positions)
                rows += _rows(sample, lanes, direction, control, str(positions))
    return rows


def mean_over_draws(lanes: Lanes) -> Float[np.ndarray, "layer pair 2"]:
    """Log-probs of a control at every layer, the mean over its draws.

    Args:
        lanes: Of one direction, control and choice of positions.
    """
    return by_draw(lanes).mean(axis=1)


def by_draw(lanes: Lanes) -> Float[np.ndarray, "layer draw pair 2"]:
    """Log-probs by layer and draw; every layer has the same number of draws.

    Args:
        lanes: Of one direction, control and choice of positions.
    """
    ordered = lanes.by_layer()
    layers = len(np.unique(ordered.layers))
    return ordered.logp.reshape(layers, -1, *ordered.logp.shape[1:])


def _rows(sample: Sample, lanes: Lanes, direction: str, control: str, positions: str) -> Rows:
    drawn, layers = by_draw(lanes), np.unique(lanes.layers)
    effects = sample.effects(drawn.mean(axis=1), direction)
    whole = patch_lanes(sample, direction, positions)
    patch = sample.effects(whole.logp[np.isin(whole.layers, layers)], direction)
    facts: Rows = [
        {"direction": direction, "control": control, "positions": positions, "layer": int(layer)}
        for layer in layers
    ]
    measured = [
        effects.with_share(),
        _draw_columns(sample, drawn, direction, patch),
        [{"largest": one} for one in _largest(sample, drawn, direction, control)],
        [{"patch_effect": float(one)} for one in patch.effect.value],
        (patch.effect - effects.effect).columns("difference"),
        effects.effect.over(patch.effect).columns("of_patch"),
    ]
    return sample.rows(facts, *measured)


def _draw_columns(
    sample: Sample,
    drawn: Float[np.ndarray, "layer draw pair 2"],
    direction: str,
    patch: Effects,
) -> Rows:
    """Spread of the draws' mean effects, and whether the patch goes beyond each of them."""
    layers, count = drawn.shape[:2]
    if count == 1:
        empty = {"draws_low": None, "draws_median": None, "draws_high": None}
        return [{"draws": 1, **empty, "beats_draws": None} for _ in range(layers)]
    margins = drawn[..., 0] - drawn[..., 1]
    means = (margins - sample.receiver_margins(direction)).mean(axis=2)
    beats = patch.towards.value > (patch.sign * means).max(axis=1)
    return [
        {
            "draws": count,
            "draws_low": float(of_draws.min()),
            "draws_median": float(np.median(of_draws)),
            "draws_high": float(of_draws.max()),
            "beats_draws": int(wins) if patch.decided else None,
        }
        for of_draws, wins in zip(means, beats, strict=True)
    ]


def _largest(
    sample: Sample, drawn: Float[np.ndarray, "layer draw pair 2"], direction: str, control: str
) -> list[float]:
    """Largest change of a pair's margin; with the donor's head largest distance to the donor."""
    margins = drawn[..., 0] - drawn[..., 1]
    towards_donor = control == "whole_head"
    plain = sample.donor_margins(direction) if towards_donor else sample.receiver_margins(direction)
    return [float(value) for value in np.abs(margins - plain).max(axis=(1, 2))]
