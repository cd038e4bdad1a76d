"""Tables of donor states or weights put into the receiver, layer by layer, and of their controls.

`patching`, `sources`, `block_swap`, `controls`, `interpolation` and `low_rank`; each function gives
the rows of one cell.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.studies.localization.lanes import DIRECTIONS
from actshift.studies.localization.tables.effects import (
    Effects,
    Estimate,
    Sample,
    blank,
    following,
    joined,
)
from actshift.studies.localization.tables.inputs import Lanes, Rows

#: The source of a plain patch in the table `sources`: each completion has its own donor states.
DONOR = "donor"
OPERATIONS = ("insert", "remove")
CONTROLS = ("identity", "noise", "random", "shuffled", "other_condition", "whole_head")
#: Bases that know nothing of tuning; what they carry any k directions carry.
CONTROL_BASES = ("random", "base_states")
_OVER = ("over_controls", "over_controls_low", "over_controls_high")


def patch_lanes(sample: Sample, direction: str, positions: str) -> Lanes:
    """The plain patch at every layer."""
    cell = {"experiment": "patch", "direction": direction, "positions": positions}
    return sample.cell.patches.where(**cell).by_layer()


def groups(lanes: Lanes) -> Iterator[tuple[str, str, Lanes]]:
    """Lanes of every direction and choice of positions."""
    for direction in DIRECTIONS:
        of_direction = lanes.where(direction=direction)
        for positions in of_direction.values("positions"):
            yield direction, str(positions), of_direction.where(positions=positions)


def patching_rows(sample: Sample) -> Rows:
    """One row a direction, choice of positions and layer.

    increment = share(l) - share(l - 1): what the patch of one more block adds; layer 0 against 0.
    """
    rows: Rows = []
    for direction, positions, lanes in groups(sample.cell.patches.where(experiment="patch")):
        by_layer = lanes.by_layer()
        effects = sample.effects(by_layer.logp, direction)
        facts = _at_layers(by_layer.layers, direction=direction, positions=positions)
        added = following(effects.share).columns("increment")
        rows += sample.rows(facts, effects.with_share(), added)
    return rows


def source_rows(sample: Sample) -> Rows:
    """One row a direction, source, choice of positions and layer; none where no source was run."""
    rows: Rows = []
    for direction, positions, lanes in groups(sample.cell.patches.where(experiment="source")):
        by_source = {DONOR: patch_lanes(sample, direction, positions)}
        by_source |= {str(s): lanes.where(source=s).by_layer() for s in lanes.values("source")}
        for source, of_source in by_source.items():
            facts = _at_layers(
                of_source.layers, direction=direction, source=source, positions=positions
            )
            rows += sample.rows(facts, sample.effects(of_source.logp, direction).with_share())
    return rows


def swap_rows(sample: Sample) -> Rows:
    """One row an operation, part and layer; `layer` is empty for embeddings and head.

    Exchanged weights are the only share of a part that is its own.
    """
    rows: Rows = []
    for operation in OPERATIONS:
        units = sample.cell.swaps.where(operation=operation)
        effects = sample.effects(units.logp, operation)
        facts: Rows = [
            {"operation": operation, "part": part, "layer": None if layer != layer else int(layer)}
            for part, layer in zip(units.facts["part"], units.facts["layer"], strict=True)
        ]
        rows += sample.rows(facts, effects.with_share())
    return rows


def _at_layers(layers: Sequence[int | None] | np.ndarray, **facts: object) -> Rows:
    return [{**facts, "layer": None if layer is None else int(layer)} for layer in layers]


def control_rows(sample: Sample) -> Rows:
    """One row a direction, control, choice of positions and layer.

    A control is what is patched in place of the donor's states; beside it stands the patch itself.
    """
    rows: Rows = []
    for direction in DIRECTIONS:
        for control in CONTROLS:
            ran = sample.cell.patches.where(experiment=control, direction=direction)
            for _, positions, lanes in groups(ran):
                rows += _control_rows(sample, lanes, direction, control, positions)
    return rows


def by_draw(lanes: Lanes) -> Float[np.ndarray, "layer draw pair 2"]:
    """Log-probs by layer and draw of one direction, control and choice of positions."""
    ordered = lanes.by_layer()
    layers = len(np.unique(ordered.layers))
    return ordered.logp.reshape(layers, -1, *ordered.logp.shape[1:])


def _control_rows(
    sample: Sample, lanes: Lanes, direction: str, control: str, positions: str
) -> Rows:
    drawn, layers = by_draw(lanes), np.unique(lanes.layers)
    effects = sample.effects(drawn.mean(axis=1), direction)
    whole = patch_lanes(sample, direction, positions)
    patch = sample.effects(whole.logp[np.isin(whole.layers, layers)], direction)
    return sample.rows(
        _at_layers(layers, direction=direction, control=control, positions=positions),
        effects.with_share(),
        _draw_columns(sample, drawn, direction, patch),
        [{"largest": value} for value in _largest(sample, drawn, direction, control)],
        [{"patch_effect": float(value)} for value in patch.effect.value],
        (patch.effect - effects.effect).columns("difference"),
        effects.effect.over(patch.effect).columns("of_patch"),
    )


def _draw_columns(
    sample: Sample,
    drawn: Float[np.ndarray, "layer draw pair 2"],
    direction: str,
    patch: Effects,
) -> Rows:
    """Spread of the draws' mean effects, and whether the patch goes beyond each of them."""
    layers, count = drawn.shape[:2]
    if count == 1:
        empty = blank("draws_low", "draws_median", "draws_high", "beats_draws")
        return [{"draws": 1, **empty}] * layers
    margins = drawn[..., 0] - drawn[..., 1]
    means = (margins - sample.margins(direction)).mean(axis=2)
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
    plain = sample.margins(direction, donor=control == "whole_head")
    return [float(value) for value in np.abs(margins - plain).max(axis=(1, 2))]


def interpolation_rows(sample: Sample) -> Rows:
    """One row a direction, layer and weight alpha; `layer` is empty for the mean over layers.

    step = effect(alpha_i) - effect(alpha_{i-1}), positive towards the donor.
    """
    rows: Rows = []
    for direction, positions, lanes in groups(
        sample.cell.patches.where(experiment="interpolation")
    ):
        alphas = np.sort(np.asarray(lanes.values("alpha"), dtype=np.float64))
        by_alpha = [lanes.where(alpha=float(alpha)).by_layer().logp for alpha in alphas]
        ladder = with_pooled(np.stack(by_alpha, axis=1))
        for logp, layer in zip(ladder, (*np.unique(lanes.layers).tolist(), None), strict=True):
            effects = sample.effects(logp, direction)
            (where,) = _at_layers([layer], direction=direction, positions=positions)
            steps = following(effects.towards).columns("step")
            # The smallest weight has no step before it.
            steps[0] = blank(*steps[0])
            facts = [{**where, "alpha": float(alpha)} for alpha in alphas]
            rows += sample.rows(facts, effects.with_share(), steps)
    return rows


def with_pooled(logp: Float[np.ndarray, "layer ..."]) -> Float[np.ndarray, "pooled ..."]:
    """The mean over layers below the layers; means of log-probs give means of effects."""
    return np.concatenate([logp, logp.mean(axis=0, keepdims=True)])


@dataclass(frozen=True)
class Basis:
    """The directions that are patched, and whether the receiver keeps what lies outside them."""

    name: str
    keep_rest: bool
    rank: int


def low_rank_rows(sample: Sample, bases: pd.DataFrame) -> Rows:
    """One row a direction, basis, `keep_rest`, rank and layer; `layer` is empty for the mean.

    The full patch is the row without basis and rank. `bases` is `bases.csv`.
    """
    rows: Rows = []
    width = int(bases["d"].iloc[0])
    for direction, positions, lanes in groups(sample.cell.patches.where(experiment="low_rank")):
        whole = patch_lanes(sample, direction, positions)
        layers = [int(layer) for layer in whole.layers]
        full = sample.effects(with_pooled(whole.logp), direction)
        facts = joined(
            _at_layers((*layers, None), direction=direction, positions=positions, d=width),
            [{"full_effect": float(value)} for value in full.effect.value],
            _noise_of_full(sample, full, direction, positions),
        )
        rows += _full_rows(sample, full, facts)
        effects = {
            basis: sample.effects(
                with_pooled(lanes.where(**_named(basis)).by_layer().logp), direction
            )
            for basis in _ran(lanes)
        }
        of_full = {basis: edits.effect.over(full.effect) for basis, edits in effects.items()}
        for basis, edits in effects.items():
            rows += sample.rows(
                facts,
                [_named(basis)] * len(facts),
                edits.columns(),
                of_full[basis].columns("of_full"),
                over_controls(basis, of_full),
                _variance(bases, basis, layers, width),
            )
    return rows


def over_controls(basis: Basis, of_full: Mapping[Basis, Estimate]) -> Rows:
    """What a basis carries beyond each control basis: the smallest of the differences.

    Returns:
        Smallest value, smallest lower end and smallest upper end, by layer; empty for controls,
        and where a control of the same rank was not run or does not keep the rest.
    """
    beside = [Basis(name, basis.keep_rest, basis.rank) for name in CONTROL_BASES]
    carried = of_full[basis]
    if basis.name in CONTROL_BASES or not set(beside) <= of_full.keys():
        return [blank(*_OVER)] * len(carried.value)
    over = [carried - of_full[control] for control in beside]
    smallest = np.min([[difference.value, *difference.ends.T] for difference in over], axis=0)
    return [dict(zip(_OVER, (float(end) for end in ends), strict=True)) for ends in smallest.T]


def _ran(lanes: Lanes) -> list[Basis]:
    facts = lanes.facts.drop_duplicates(["basis", "keep_rest", "rank"])
    return [
        Basis(str(name), bool(keep), int(rank))
        for name, keep, rank in zip(facts["basis"], facts["keep_rest"], facts["rank"], strict=True)
    ]


def _named(basis: Basis) -> dict[str, object]:
    return {"basis": basis.name, "keep_rest": basis.keep_rest, "rank": basis.rank}


def _noise_of_full(sample: Sample, full: Effects, direction: str, positions: str) -> Rows:
    """Effect of Gaussian noise over that of the full patch: what disruption alone gives."""
    cell = {"experiment": "noise", "direction": direction, "positions": positions}
    lanes = sample.cell.patches.where(**cell)
    if not len(lanes):
        return [{"noise_of_full": None}] * len(full.effect.value)
    noise = sample.effects(with_pooled(by_draw(lanes).mean(axis=1)), direction)
    return [{"noise_of_full": float(value)} for value in noise.effect.over(full.effect).value]


def _full_rows(sample: Sample, full: Effects, facts: Rows) -> Rows:
    """The patch itself as the row of full rank."""
    ones = dict.fromkeys(("k_over_d", "share_of_variance", "share_of_variance_fit"), 1.0)
    whole = {**blank("basis", "keep_rest", "rank", *_OVER), **ones}
    of_full = full.effect.over(full.effect).columns("of_full")
    return sample.rows(facts, [whole] * len(facts), full.columns(), of_full)


def _variance(bases: pd.DataFrame, basis: Basis, layers: list[int], width: int) -> Rows:
    """Shares of the squared norm in the basis: of unseen clusters, and of those it is fitted on.

    Folds are weighted by their tokens; the last row is the mean over layers.
    """
    of_basis = bases.loc[(bases["basis"] == basis.name) & (bases["k"] == basis.rank)]
    shares = {
        name: [_weighted(of_basis, layer, column, weight) for layer in layers]
        for name, column, weight in (
            ("share_of_variance", "share", "n"),
            ("share_of_variance_fit", "share_fit", "n_fit"),
        )
    }
    columns = [np.append(values, np.mean(values)).tolist() for values in shares.values()]
    return [
        {"k_over_d": basis.rank / width, **dict(zip(shares, row, strict=True))}
        for row in zip(*columns, strict=True)
    ]


def _weighted(rows: pd.DataFrame, layer: int, column: str, weight: str) -> float:
    of_layer = rows.loc[rows["layer"] == layer]
    if not len(of_layer):
        return float("nan")
    return float(np.average(of_layer[column], weights=of_layer[weight]))
