"""Spectral gap: is the tuned model's shift set apart from that of an unsafe reference of its base?

With the same base, S = M_honest - M_unsafe is tuned minus reference, prompt by prompt. The paper's
argument needs kappa > 8; kappa is at most 2 / (eps r), so at rank 5 or more a small kappa is
arithmetic. Activation stores of one pair in, one table out (torch-free).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Bool

from actshift.engine.context import JobContext
from actshift.engine.stores import CONDITIONS, PromptRows, StreamReader, fit_and_heldout
from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.missed import Missed, first_missed, mark_missed, missed_in
from actshift.io.store import ActivationStore
from actshift.io.tables import write_table
from actshift.maths.gap import SpectralGap, resampled_kappas, spectral_gap
from actshift.maths.resampling import half_samples, shifted_range
from actshift.prompts.records import read_prompts
from actshift.random_streams import KAPPA_HALVES
from actshift.studies.spectral_gap.study import COLUMNS, Kappa
from actshift.vocab import ROLES

#: File of a pair's folder.
TABLE = "spectral_gap.csv"


def spectral_gap_of_pair(
    inputs: Mapping[str, Any], *, settings: Kappa, context: JobContext, out: Path
) -> None:
    """Write the table of one pair, on the prompts that the rank audit fits.

    A reference that missed its gate is left out.

    Args:
        inputs: `stores`, folders `<pair>.<role or reference>/<prompt set>.<template>` of the
            harmful prompts; prompt sets of the conditions `harmful` and `harmless`.
        settings: How kappa is measured.
        context: The job; its seed is that of the half-samples.
        out: Folder of the table; it appears whole or not at all.

    Raises:
        UserError: A store is missing or damaged, or does not fit the others.
    """
    pair = context.pair
    by_role = {folder.parent.name.rpartition(".")[2]: folder for folder in inputs["stores"]}
    missed = unusable(by_role)
    if missed is not None:
        mark_missed(out, missed)
        print(f"{pair}: {missed.status}")
        return
    prompts = {condition: inputs[condition] for condition in CONDITIONS}
    rows = {path.stem: read_prompts(path) for path in prompts.values()}
    sets = {condition: path.stem for condition, path in prompts.items()}
    fitted, _ = fit_and_heldout(rows, sets, fit=("fit",), heldout=("heldout",))
    # The type checker does not take a cached_property for a property.
    readers = {
        role: cast(StreamReader, ActivationStore.open(folder))
        for role, folder in by_role.items()
        if missed_in(folder) is None
    }
    missing = [role for role in ROLES if role not in readers]
    if missing or len(readers) < 3:
        raise UserError(
            f"spectral_gap: {pair} has no store of {missing[0] if missing else 'a reference'}; "
            "the rule must list it as an input"
        )
    table = gap_table(readers, fitted["harmful"], settings, pair=pair, seed=context.seed)
    with publishing(out) as partial:
        partial.mkdir(parents=True, exist_ok=True)
        write_table(table, partial / TABLE)
    print(f"{pair}: {TABLE}, {len(table)} rows")


def unusable(by_role: Mapping[str, Path]) -> Missed | None:
    """The missed gate that leaves a pair nothing to compare, None where something is left."""
    of_pair = first_missed(folder for role, folder in by_role.items() if role in ROLES)
    references = [folder for role, folder in by_role.items() if role not in ROLES]
    if of_pair is not None or not references:
        return of_pair
    if any(missed_in(folder) is None for folder in references):
        return None
    return first_missed(references)


def gap_table(
    readers: Mapping[str, StreamReader],
    prompts: PromptRows,
    settings: Kappa,
    *,
    pair: str,
    seed: int,
) -> pd.DataFrame:
    """Kappa, its bound and its stability range for every layer and reference.

    `readers` are streams of the harmful prompts in the chat template by role: `base`, `tuned`, and
    one for every reference, which needs the depth of its pair. The half-samples of the
    fitted prompts' clusters are shared by all layers and references. Where S is zero (`no
    difference`) kappa is empty; at rank 5 or more (`rank too high`) it cannot exceed 8.

    Source: arXiv 2605.24583, spectral-gap check.

    Raises:
        UserError: A reference has another depth than the pair.
    """
    depth = len(readers["base"].layers)
    for name, reader in readers.items():
        if len(reader.layers) != depth:
            raise UserError(
                f"spectral_gap: {pair}.{name} has {len(reader.layers)} layers, {pair}.base has "
                f"{depth}; a reference needs the depth of its pair"
            )
    rng = KAPPA_HALVES.rng(seed)
    halves = half_samples(prompts.clusters, draws=settings.half_sample_draws, rng=rng)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in readers if name not in ROLES}
    for layer in (int(number) for number in readers["base"].layers):
        acts = {role: reader.read(layer, -1, prompts.ids) for role, reader in readers.items()}
        base = acts["base"].astype(np.float64)
        honest = acts["tuned"] - base
        for name, part in rows.items():
            fixed = {"pair": pair, "reference": name, "layer": layer}
            part.append({**fixed, **_row(honest, acts[name] - base, prompts, halves, settings.eps)})
    return pd.DataFrame(
        [row for part in rows.values() for row in part], columns=list(COLUMNS["spectral_gap"])
    )


def _row(
    honest: np.ndarray,
    unsafe: np.ndarray,
    prompts: PromptRows,
    halves: Bool[np.ndarray, "draw prompt"],
    eps: float,
) -> dict[str, Any]:
    gap = spectral_gap(honest, unsafe, eps=eps)
    low, high = kappa_range(gap, resampled_kappas(honest, unsafe, halves, eps=eps), eps=eps)
    return {
        "n": len(prompts.ids),
        "clusters": len(set(prompts.clusters)),
        "d": honest.shape[1],
        "rank_S": gap.rank,
        "sigma_1": gap.sigma_first,
        "sigma_r": gap.sigma_last,
        "norm_S": gap.energy**0.5,
        "norm_honest": gap.energy_honest**0.5,
        "norm_unsafe": gap.energy_unsafe**0.5,
        "kappa": gap.kappa,
        "kappa_low": low,
        "kappa_high": high,
        "bound": gap.bound,
        "kappa_over_bound": gap.kappa / gap.bound,
        "informative": gap.informative,
        "status": gap_status(gap.rank, informative=gap.informative),
    }


def kappa_range(gap: SpectralGap, draws: np.ndarray, *, eps: float) -> tuple[float, float]:
    """Stability range of kappa at full n: the half-samples' spread on the log scale, moved to it.

    No kappa exceeds 2 / eps, the bound at rank 1, and neither does the range.
    """
    if not gap.rank:
        return float("nan"), float("nan")
    low, high = shifted_range(float(np.log(gap.kappa)), np.log(draws))
    return float(np.exp(low)), min(float(np.exp(high)), 2.0 / eps)


def gap_status(rank: int, *, informative: bool) -> str:
    """Whether a layer can say anything: S is zero, kappa is bounded below 8, or neither."""
    if rank == 0:
        return "no difference"
    return "informative" if informative else "rank too high"
