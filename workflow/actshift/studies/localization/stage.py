"""Every patch, control and swap on the preference pairs of one pair of models.

Plain scores come first and are judged by the gate. Then bases and moments, the sweeps and the
swaps; their parts are kept in a staging folder, so that a rerun after a kill goes on where it
stopped, and the folder of the pair appears as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from actshift.engine.causal import causal_model
from actshift.engine.context import JobContext
from actshift.engine.parts import fill_parts, join_parts, write_part
from actshift.errors import GateError
from actshift.hooks.patching.pair_batch import shift_norms, state_sums
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.scoring import score_pairs
from actshift.io.atomic import file_lock, publishing, remove
from actshift.io.hashing import hash_json
from actshift.io.manifest import weights_hash
from actshift.io.missed import Missed, mark_missed, place_of_rows
from actshift.io.tables import write_table
from actshift.models.load import LoadedModel, load_model
from actshift.patching import PairScores
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
from actshift.studies.localization.pairs import PairSet, read_pairs
from actshift.studies.localization.rows import PATCHES, SWAPS, Job
from actshift.studies.localization.settings import LENGTHS, LaneSettings
from actshift.studies.localization.study import Localization
from actshift.vocab import ROLES, Role

PAIRS_FILE, PLAIN_FILE, PATCHES_FILE = "pairs.csv", "plain.parquet", "patches.parquet"
SWAPS_FILE, DISTANCES_FILE, BASES_FILE = "swaps.parquet", "distances.parquet", "bases.csv"
#: Single tokens at which the two models' states are compared.
PLACES = ("last_prompt", "last_chosen", "last_rejected")
_STRINGS = ("pair_id", "length", "model", "position")


@dataclass(frozen=True)
class LocalizationInputs:
    """What one pair is made of.

    Attributes:
        checkpoints: Folder of each model.
        preferences: Set of preference pairs.
        gated: Whether the gate is looked at. Where it is missed, the folder holds a marker alone.
        strict: Whether a missed gate is an error.
    """

    checkpoints: Mapping[Role, Path]
    preferences: Path
    gated: bool
    strict: bool


def localization(
    inputs: LocalizationInputs,
    *,
    settings: Localization,
    context: JobContext,
    rows: Path,
    out: Path,
) -> None:
    """Score, judge, patch and swap, and write the pair's folder.

    Args:
        inputs: The pair.
        settings: The study's section of the configuration.
        context: The job; its seed is that of folds, partners, random draws and resamples.
        rows: CSV of both models' margins, written before the gate is looked at.
        out: Folder to make.

    Raises:
        GateError: The tuned model's margin does not exceed the base's, and a missed gate is an
            error; `rows` is there.
        UserError: Pairs and models do not fit together.

    Source: Chaudhury 2025 (arXiv 2510.16167), sections 3 and 4, A1 to A5.
    """
    keep_freed_memory()
    models, sets = _open(inputs, settings, context)
    causal: dict[Role, CausalModel] = {role: causal_model(models[role].model) for role in ROLES}
    budget = settings.token_budget
    plain: dict[tuple[str, Role], PairScores] = {
        (pairs.length, role): score_pairs(causal[role], pairs.tokens, token_budget=budget)
        for pairs, role in product(sets, ROLES)
    }
    missed = _missed(context, sets[0], plain, rows=rows, strict=inputs.strict)
    if inputs.gated and missed is not None:
        if inputs.strict:
            raise GateError(missed.detail)
        mark_missed(out, missed)
        return
    lanes = LaneSettings.of(settings, seed=context.seed, d_model=models["base"].d_model)
    fitted = _fit(causal, sets[0], lanes, budget)
    bases = [fitted.of_fold(fold) for fold in range(len(fitted.bases[RANDOM]))]
    job = Job(causal, sets, plain, bases, fitted.moments, lanes, budget)
    key = _key(inputs, sets, lanes, budget, context)
    parts = context.staging / key
    with file_lock(context.staging / f"{key[:16]}.lock"), publishing(out) as partial:
        _write(job, parts, partial, label=context.pair)
        shares = [row for folds in fitted.bases.values() for pairs in folds for row in pairs.rows]
        write_table(pd.DataFrame(shares, columns=list(BASES_COLUMNS)), partial / BASES_FILE)
    remove(parts)


def _open(
    inputs: LocalizationInputs, settings: Localization, context: JobContext
) -> tuple[dict[Role, LoadedModel], list[PairSet]]:
    """Load both models, and the pairs as their tokens."""
    models: dict[Role, LoadedModel] = {
        role: load_model(
            inputs.checkpoints[role],
            name=f"{context.pair}.{role}",
            dtype=context.dtype,
            device=context.device,
        )
        for role in ROLES
    }
    sets = read_pairs(
        inputs.preferences,
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


@dataclass(frozen=True)
class _Fitted:
    """What is learned of the states before anything is patched.

    Attributes:
        bases: By name, one a fold.
        moments: Of each model's states.
    """

    bases: dict[str, list[FoldBasis]]
    moments: dict[Role, Moments]

    def of_fold(self, fold: int) -> Bases:
        """Return the columns of all bases of a fold."""
        return {name: folds[fold].columns for name, folds in self.bases.items()}


def _fit(
    causal: Mapping[Role, CausalModel], pairs: PairSet, lanes: LaneSettings, budget: int
) -> _Fitted:
    """Fit bases and moments fold by fold; the sums of one kind of states are held at a time."""
    folds = range(int(pairs.folds.max()) + 1)
    fitted = _Fitted({}, {})
    for name in FITTED:
        role: Role = "base" if name == "base_states" else "tuned"
        minus = causal["base"] if name == "shift" else None
        sums = [
            state_sums(causal[role], pairs.of_fold(fold), minus=minus, token_budget=budget)
            for fold in folds
        ]
        fitted.bases[name] = fit_bases(name, sums, ranks=lanes.ranks)
        if name == "shift":
            fitted.bases[RANDOM] = random_bases(sums, ranks=lanes.ranks, seed=lanes.seed)
        else:
            fitted.moments[role] = moments(sums)
    return fitted


def _key(
    inputs: LocalizationInputs,
    sets: Sequence[PairSet],
    lanes: LaneSettings,
    budget: int,
    context: JobContext,
) -> str:
    """Hash of all that decides the parts."""
    weights = {role: weights_hash(inputs.checkpoints[role]) for role in ROLES}
    pairs = [
        {
            "length": one.length,
            "folds": one.folds.tolist(),
            "rows": [asdict(row) for row in one.rows],
            "tokens": [[pair.prompt, *pair.sides] for pair in one.tokens],
        }
        for one in sets
    ]
    facts = {
        "budget": str(budget),
        "code": context.code,
        "dtype": context.dtype,
        "device": context.device,
    }
    return hash_json({"weights": weights, "pairs": pairs, "lanes": asdict(lanes), **facts})


def _write(job: Job, parts: Path, out: Path, *, label: str) -> None:
    out.mkdir()
    patched = fill_parts(job.patch_parts(), parts / "patches", label=label, unit="patch")
    swapped = fill_parts(job.swap_parts(), parts / "swaps", label=f"{label}, swaps", unit="score")
    join_parts(patched, out / PATCHES_FILE, PATCHES)
    join_parts(swapped, out / SWAPS_FILE, SWAPS)
    write_table(pd.concat([pairs.table() for pairs in job.sets]), out / PAIRS_FILE)
    write_part(_rows(list(job.plain_rows())), out / PLAIN_FILE)
    write_part(_rows(list(_distances(job))), out / DISTANCES_FILE)


def _distances(job: Job) -> Iterator[dict[str, Any]]:
    """Norms of the shift at single tokens."""
    for pairs in job.sets:
        norms = shift_norms(
            job.models["base"], job.models["tuned"], pairs.tokens, token_budget=job.token_budget
        )
        for layer, of_layer in enumerate(norms):
            for row, places in zip(pairs.rows, of_layer.tolist(), strict=True):
                for position, norm in zip(PLACES, places, strict=True):
                    yield {
                        "pair_id": row.id,
                        "length": pairs.length,
                        "layer": layer,
                        "position": position,
                        "norm": norm,
                    }


def _rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    kinds = {name: pa.string() for name in _STRINGS} | {"layer": pa.int32()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
