"""Every patch, control and swap on the preference pairs of one pair of models.

Plain scores come first and are judged by the gate. Then bases and moments, the sweeps and the
swaps; their parts are kept in a staging folder, so that a rerun after a kill goes on where it
stopped, and the folder of the pair appears as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from actshift.engine.causal import causal_model
from actshift.engine.context import JobContext
from actshift.engine.parts import Part, fill_parts, join_parts, write_part
from actshift.errors import GateError
from actshift.hooks.patching.block_swap import swap_scores
from actshift.hooks.patching.pair_batch import shift_norms, state_sums
from actshift.hooks.patching.staircase import patch_sweep
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.scoring import score_pairs
from actshift.io.atomic import file_lock, hash_json, publishing, remove
from actshift.io.manifest import weights_hash
from actshift.io.missed import Missed, mark_missed, place_of_rows
from actshift.io.tables import write_table
from actshift.models.load import LoadedModel, load_model
from actshift.patching import PairScores, SwapUnit, swap_units
from actshift.studies.localization.bases import (
    BASES_COLUMNS,
    FITTED,
    RANDOM,
    Bases,
    FoldBasis,
    Moments,
    fit_bases,
    moments,
    random_bases,
)
from actshift.studies.localization.gate import margin_gate
from actshift.studies.localization.lanes import (
    DIRECTIONS,
    LENGTHS,
    Direction,
    LaneFacts,
    Planned,
    matched_lanes,
    natural_lanes,
    within,
)
from actshift.studies.localization.pairs import PairSet, read_pairs
from actshift.studies.localization.study import Localization
from actshift.vocab import ROLES, Role

PAIRS_FILE, PLAIN_FILE, PATCHES_FILE = "pairs.csv", "plain.parquet", "patches.parquet"
SWAPS_FILE, DISTANCES_FILE, BASES_FILE = "swaps.parquet", "distances.parquet", "bases.csv"
#: Single tokens at which the two models' states are compared.
PLACES = ("last_prompt", "last_chosen", "last_rejected")
_STRINGS = ("pair_id", "length", "model", "position")


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
        *((fact.name, _TYPES.get(fact.name, pa.string())) for fact in fields(LaneFacts)),
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


def localization(
    inputs: Mapping[str, Path],
    *,
    settings: Localization,
    context: JobContext,
    out: Path,
    rows: str,
    gated: bool,
    strict: bool,
) -> None:
    """Score, judge, patch and swap, and write the pair's folder.

    Args:
        inputs: `base` and `tuned`, the folders of the models, and the pairs `preferences`.
        settings: The study's section of the configuration.
        context: The job; its seed is that of folds, partners, random draws and resamples.
        out: Folder to make.
        rows: CSV of both models' margins, written before the gate is looked at.
        gated: Whether the gate is looked at. Where it is missed, the folder holds a marker alone.
        strict: Whether a missed gate is an error.

    Raises:
        GateError: The tuned model's margin does not exceed the base's, and a missed gate is an
            error; `rows` is there.
        UserError: Pairs and models do not fit together.

    Source: Chaudhury 2025 (arXiv 2510.16167), sections 3 and 4, A1 to A5.
    """
    keep_freed_memory()
    models, sets = _open(inputs, settings, context)
    causal: dict[Role, CausalModel] = {role: causal_model(models[role].model) for role in ROLES}
    plain: dict[tuple[str, Role], PairScores] = {
        (pairs.length, role): score_pairs(
            causal[role], pairs.tokens, token_budget=settings.token_budget
        )
        for pairs, role in product(sets, ROLES)
    }
    missed = _missed(context, sets[0], plain, rows=Path(rows), strict=strict)
    if gated and missed is not None:
        if strict:
            raise GateError(missed.detail)
        mark_missed(out, missed)
        return
    settings = within(settings, models["base"].d_model)
    by_basis, moments_of = _fit(causal, sets[0], settings, seed=context.seed)
    bases = [
        {name: folds[fold].columns for name, folds in by_basis.items()}
        for fold in range(len(by_basis[RANDOM]))
    ]
    job = Job(causal, sets, plain, bases, moments_of, settings, context.seed)
    key = _key(inputs, sets, settings, context)
    parts = context.staging / key
    with file_lock(context.staging / f"{key[:16]}.lock"), publishing(out) as folder:
        _write(job, parts, folder, label=context.pair)
        shares = [row for folds in by_basis.values() for basis in folds for row in basis.rows]
        write_table(pd.DataFrame(shares, columns=list(BASES_COLUMNS)), folder / BASES_FILE)
    remove(parts)


def _open(
    inputs: Mapping[str, Path], settings: Localization, context: JobContext
) -> tuple[dict[Role, LoadedModel], list[PairSet]]:
    """Load both models, and the pairs as their tokens."""
    models: dict[Role, LoadedModel] = {
        role: load_model(
            inputs[role],
            name=f"{context.pair}.{role}",
            dtype=context.dtype,
            device=context.device,
        )
        for role in ROLES
    }
    sets = read_pairs(
        inputs["preferences"],
        [models[role] for role in ROLES],
        folds=settings.folds,
        max_tokens=settings.max_tokens,
        lengths=LENGTHS,
        seed=context.seed,
    )
    return models, sets


def _missed(
    context: JobContext,
    pairs: PairSet,
    plain: Mapping[tuple[str, Role], PairScores],
    *,
    rows: Path,
    strict: bool,
) -> Missed | None:
    """Write the margins; the missed gate where tuning moved no preference."""
    base, tuned = (plain[pairs.length, role].margin for role in ROLES)
    table = pairs.table().assign(margin_base=base, margin_tuned=tuned, gap=tuned - base)
    write_table(table, rows)
    gate = margin_gate(tuned - base, pairs.conditions, pairs.clusters, seed=context.seed)
    print(f"{context.pair}: {gate.line()}")
    if gate.passed:
        return None
    return Missed(
        subject=f"{context.pair}: preference gap",
        reason=(
            f"gate missed, gap of {gate.mean:.2f} nats, interval {gate.low:.2f} to {gate.high:.2f} "
            "not above 0"
        ),
        detail=(
            f"localization of {context.pair}: {gate.line()}; an interval above 0 is needed, else "
            "there is no preference to localise; the margins are in "
            f"{place_of_rows(rows, strict=strict)}"
        ),
        stage="localization",
    )


def _fit(
    causal: Mapping[Role, CausalModel], pairs: PairSet, settings: Localization, *, seed: int
) -> tuple[dict[str, list[FoldBasis]], dict[Role, Moments]]:
    """Bases by name and fold, and moments; the sums of one kind of states are held at a time."""
    folds = range(int(pairs.folds.max()) + 1)
    bases: dict[str, list[FoldBasis]] = {}
    moments_of: dict[Role, Moments] = {}
    for name in FITTED:
        role: Role = "base" if name == "base_states" else "tuned"
        minus = causal["base"] if name == "shift" else None
        sums = [
            state_sums(
                causal[role], pairs.of_fold(fold), minus=minus, token_budget=settings.token_budget
            )
            for fold in folds
        ]
        bases[name] = fit_bases(name, sums, ranks=settings.ranks)
        if name == "shift":
            bases[RANDOM] = random_bases(sums, ranks=settings.ranks, seed=seed)
        else:
            moments_of[role] = moments(sums)
    return bases, moments_of


def _key(
    inputs: Mapping[str, Path],
    sets: Sequence[PairSet],
    settings: Localization,
    context: JobContext,
) -> str:
    """Hash of all that decides the parts."""
    weights = {role: weights_hash(inputs[role]) for role in ROLES}
    pairs = [
        {
            "length": of_length.length,
            "folds": of_length.folds.tolist(),
            "rows": [asdict(row) for row in of_length.rows],
            "tokens": [[pair.prompt, *pair.sides] for pair in of_length.tokens],
        }
        for of_length in sets
    ]
    lanes = ("random_draws", "noise_draws", "ranks", "alphas", "token_budget")
    facts = {name: getattr(settings, name) for name in lanes}
    facts |= {name: getattr(context, name) for name in ("seed", "code", "dtype", "device")}
    return hash_json({"weights": weights, "pairs": pairs, **facts})


@dataclass(frozen=True)
class Job:
    """Everything that rows are made of: bases by fold, settings with ranks below the width."""

    models: Mapping[Role, CausalModel]
    sets: Sequence[PairSet]
    plain: Mapping[tuple[str, Role], PairScores]
    bases: Sequence[Bases]
    moments: Mapping[Role, Moments]
    settings: Localization
    seed: int

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
            self.settings,
            self.bases[fold],
            self.moments[SIDES[direction][1]],
            direction=direction,
            partnered=tuple(pairs.stand_ins),
            seed=self.seed,
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
            token_budget=self.settings.token_budget,
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
        scores = swap_scores(
            host, guest, pairs.tokens, units, token_budget=self.settings.token_budget
        )
        shared = {"length": pairs.length, "operation": operation}
        labels = [{**shared, "part": unit.part, "layer": unit.layer} for unit in units]
        return _table(labels, [row.id for row in pairs.rows], scores.logp, SWAPS)


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


def _write(job: Job, parts: Path, out: Path, *, label: str) -> None:
    out.mkdir()
    patched = fill_parts(job.patch_parts(), parts / "patches", label=label, unit="patch")
    swapped = fill_parts(job.swap_parts(), parts / "swaps", label=f"{label}, swaps", unit="score")
    join_parts(patched, out / PATCHES_FILE, PATCHES)
    join_parts(swapped, out / SWAPS_FILE, SWAPS)
    write_table(pd.concat([pairs.table() for pairs in job.sets]), out / PAIRS_FILE)
    write_part(_rows(list(_plain_rows(job))), out / PLAIN_FILE)
    write_part(_rows(list(_distances(job))), out / DISTANCES_FILE)


def _plain_rows(job: Job) -> Iterator[dict[str, Any]]:
    for pairs, role in product(job.sets, ROLES):
        scores = job.plain[pairs.length, role].logp.tolist()
        for row, (chosen, rejected) in zip(pairs.rows, scores, strict=True):
            named = {"pair_id": row.id, "length": pairs.length, "model": role}
            yield {**named, "logp_chosen": chosen, "logp_rejected": rejected}


def _distances(job: Job) -> Iterator[dict[str, Any]]:
    """Norms of the shift at single tokens."""
    for pairs in job.sets:
        norms = shift_norms(
            job.models["base"],
            job.models["tuned"],
            pairs.tokens,
            token_budget=job.settings.token_budget,
        )
        for layer, of_layer in enumerate(norms):
            for row, places in zip(pairs.rows, of_layer.tolist(), strict=True):
                for position, norm in zip(PLACES, places, strict=True):
                    named = {"pair_id": row.id, "length": pairs.length, "layer": layer}
                    yield {**named, "position": position, "norm": norm}


def _rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    kinds = {name: pa.string() for name in _STRINGS} | {"layer": pa.int32()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema=schema)
