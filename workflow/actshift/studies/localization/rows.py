"""Rows of the patching sweeps and of the block swaps of one pair of models, part by part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from actshift.engine.parts import Part
from actshift.hooks.patching.block_swap import swap_scores
from actshift.hooks.patching.staircase import patch_sweep
from actshift.hooks.reading.model_parts import CausalModel
from actshift.patching import PairScores, SwapUnit, swap_units
from actshift.studies.localization.bases import Bases, Moments
from actshift.studies.localization.lanes import matched_lanes, natural_lanes
from actshift.studies.localization.pairs import PairSet
from actshift.studies.localization.settings import (
    DIRECTIONS,
    Direction,
    LaneFacts,
    LaneSettings,
    Planned,
)
from actshift.vocab import ROLES, Role

_TYPES = {
    "layer": pa.int32(),
    "alpha": pa.float64(),
    "rank": pa.int32(),
    "keep_rest": pa.bool_(),
    "draw": pa.int32(),
}
_SCORES = [("logp_chosen", pa.float64()), ("logp_rejected", pa.float64())]
PATCHES = pa.schema(
    [
        *((name, pa.string()) for name in ("pair_id", "length", "lane", "direction")),
        *((one.name, _TYPES.get(one.name, pa.string())) for one in fields(LaneFacts)),
        *_SCORES,
    ]
)
SWAPS = pa.schema(
    [
        *((name, pa.string()) for name in ("pair_id", "length", "operation", "part")),
        ("layer", pa.int32()),
        *_SCORES,
    ]
)
#: Receiver and donor of a direction; host and guest of an operation.
SIDES: dict[Direction, tuple[Role, Role]] = {
    "forward": ("base", "tuned"),
    "reverse": ("tuned", "base"),
}
OPERATIONS = {"insert": SIDES["forward"], "remove": SIDES["reverse"]}


@dataclass(frozen=True)
class Job:
    """Everything that rows are made of.

    Attributes:
        models: Base and tuned, taken apart.
        sets: Pairs by length.
        plain: Scores of the plain models by length and role.
        bases: By fold.
        moments: Of the states of each model, by role.
        lanes: What decides lanes.
        token_budget: Tokens a pass.
    """

    models: Mapping[Role, CausalModel]
    sets: Sequence[PairSet]
    plain: Mapping[tuple[str, Role], PairScores]
    bases: Sequence[Bases]
    moments: Mapping[Role, Moments]
    lanes: LaneSettings
    token_budget: int

    @cached_property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return self.models["base"].n_layers

    def patch_parts(self) -> list[Part]:
        """A part for each length, direction, experiment and chunk of pairs."""
        return [
            Part(
                partial(self._patched, pairs, direction, planned, places),
                len(planned) * len(places),
            )
            for pairs in self.sets
            for direction in DIRECTIONS
            for fold, places in pairs.chunks
            for planned in self._experiments(pairs, direction, fold).values()
        ]

    def swap_parts(self) -> list[Part]:
        """A part for each length and operation."""
        units = swap_units(self.layers)
        return [
            Part(partial(self._swapped, pairs, operation, units), len(units) * len(pairs.rows))
            for pairs in self.sets
            for operation in OPERATIONS
        ]

    def _experiments(
        self, pairs: PairSet, direction: Direction, fold: int
    ) -> dict[str, list[Planned]]:
        if pairs.length == "matched":
            return matched_lanes(self.layers)
        return natural_lanes(
            self.lanes,
            self.bases[fold],
            self.moments[SIDES[direction][1]],
            direction=direction,
            partnered=tuple(pairs.stand_ins),
        )

    def _patched(
        self, pairs: PairSet, direction: Direction, planned: list[Planned], places: list[int]
    ) -> pa.Table:
        receiver, donor = SIDES[direction]
        # Partners cost a pass of the donor: only those that the lanes read.
        read = {lane.facts.experiment for lane in planned}
        sweep = patch_sweep(
            self.models[receiver],
            self.models[donor],
            [pairs.tokens[i] for i in places],
            [lane.lane for lane in planned],
            partners={
                name: [tokens[i] for i in places]
                for name, tokens in pairs.stand_ins.items()
                if name in read
            },
            token_budget=self.token_budget,
        )
        # Batches round differently: what a lane changes in its own pass is added to the receiver's
        # scores in plain.parquet, so that a lane which changes nothing has exactly those.
        plain = self.plain[pairs.length, receiver].logp[places]
        logp = plain + (sweep.lanes.logp - sweep.receiver.logp)
        ids = [pairs.rows[i].id for i in places]
        labels = [
            {**lane.facts.row(), "length": pairs.length, "direction": direction} for lane in planned
        ]
        return _table(labels, ids, logp, PATCHES)

    def _swapped(self, pairs: PairSet, operation: str, units: Sequence[SwapUnit]) -> pa.Table:
        host, guest = (self.models[role] for role in OPERATIONS[operation])
        scores = swap_scores(host, guest, pairs.tokens, units, token_budget=self.token_budget)
        labels = [
            {
                "length": pairs.length,
                "operation": operation,
                "part": unit.part,
                "layer": unit.layer,
            }
            for unit in units
        ]
        return _table(labels, [row.id for row in pairs.rows], scores.logp, SWAPS)

    def plain_rows(self) -> Iterator[dict[str, Any]]:
        """Scores of the plain models: pair_id, length, model, log-probs."""
        for pairs in self.sets:
            for role in ROLES:
                scores = self.plain[pairs.length, role].logp.tolist()
                for row, (chosen, rejected) in zip(pairs.rows, scores, strict=True):
                    yield {
                        "pair_id": row.id,
                        "length": pairs.length,
                        "model": role,
                        "logp_chosen": chosen,
                        "logp_rejected": rejected,
                    }


def _table(
    labels: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    logp: Float[np.ndarray, "lane pair side"],
    schema: pa.Schema,
) -> pa.Table:
    """Rows by lane, then by pair."""
    count = len(ids)
    columns: dict[str, Any] = {
        "pair_id": list(ids) * len(labels),
        "logp_chosen": logp[..., 0].ravel(),
        "logp_rejected": logp[..., 1].ravel(),
    }
    for field in schema:
        if field.name not in columns:
            columns[field.name] = [label[field.name] for label in labels for _ in range(count)]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
