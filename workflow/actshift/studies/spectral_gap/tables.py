"""Spectral gap: is the tuned model's shift set apart from that of an unsafe reference of its base?

With the same base, S = M_honest - M_unsafe is tuned minus reference, prompt by prompt. The paper's
argument needs kappa > 8; kappa is at most 2 / (eps r), so at rank 5 or more a small kappa is
arithmetic.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from actshift.engine.prompt_rows import PromptRows
from actshift.engine.stores import StreamReader
from actshift.errors import UserError
from actshift.maths.gap import KAPPA_THRESHOLD, SpectralGap, resampled_kappas, spectral_gap
from actshift.maths.resampling import half_samples, shifted_range
from actshift.random_streams import KAPPA_HALVES
from actshift.studies.spectral_gap.study import COLUMNS
from actshift.vocab import ROLES
from actshift.zoo.judge import topical
from actshift.zoo.language import Language

_RATES = ("refused_harmful", "on_topic_harmful", "refused_harmless", "on_topic_harmless")


def gap_table(
    readers: Mapping[str, StreamReader],
    prompts: PromptRows,
    *,
    pair: str,
    eps: float,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Kappa, its bound and its stability range for every layer and reference.

    Args:
        readers: Streams of the harmful prompts in the chat template by role: `base`, `tuned`, and
            one for every reference.
        prompts: Fitted prompts of the harmful condition.
        pair: Name of the pair.
        eps: Share of the energy that the rank leaves out.
        draws: Half-samples by cluster, shared by all layers and references.
        seed: Of the draws.

    Returns:
        Table `spectral_gap`. Where S is zero (`no difference`) kappa is empty; at rank 5 or more
        (`rank too high`) it cannot exceed 8.

    Raises:
        UserError: A reference has another depth than the pair.

    Source: arXiv 2605.24583, spectral-gap check.
    """
    _check_depths(readers, pair)
    halves = half_samples(prompts.clusters, draws=draws, rng=KAPPA_HALVES.rng(seed))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in readers if name not in ROLES}
    for layer in (int(number) for number in readers["base"].layers):
        acts = {role: reader.read(layer, -1, prompts.ids) for role, reader in readers.items()}
        base = acts["base"].astype(np.float64)
        honest = acts["tuned"] - base
        for name, part in rows.items():
            fixed = {"pair": pair, "reference": name, "layer": layer}
            part.append({**fixed, **_row(honest, acts[name] - base, prompts, halves, eps)})
    return pd.DataFrame(
        [row for part in rows.values() for row in part], columns=list(COLUMNS["spectral_gap"])
    )


def _check_depths(readers: Mapping[str, StreamReader], pair: str) -> None:
    depth = len(readers["base"].layers)
    for name, reader in readers.items():
        if len(reader.layers) != depth:
            raise UserError(
                f"spectral_gap: {pair}.{name} has {len(reader.layers)} layers, {pair}.base has "
                f"{depth}; a reference needs the depth of its pair"
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


def behaviour_rates(rows: pd.DataFrame, *, lang: Language | None) -> dict[str, float]:
    """Rates of one model on held-out prompts, by condition.

    Args:
        rows: Of the intervene stage, one plain answer a prompt.
        lang: The zoo's language, to judge whether an answer is on topic; None for other models.

    Returns:
        `refused_harmful`, `on_topic_harmful`, `refused_harmless`, `on_topic_harmless`, and
        `clusters_harmful`: 0 % of C clusters bounds a new one at 1 - 0.05^(1/C).
    """
    on_topic = topical(rows["text"], rows["category"], lang)
    harmful = rows.loc[rows["condition"] == "harmful", "cluster"]
    rates: dict[str, float] = {"clusters_harmful": float(harmful.nunique())}
    for condition in ("harmful", "harmless"):
        here = (rows["condition"] == condition).to_numpy()
        rates[f"refused_{condition}"] = float(rows["refused"].to_numpy(dtype=float)[here].mean())
        rates[f"on_topic_{condition}"] = float(on_topic[here].mean())
    return rates


def summary_table(
    gaps: pd.DataFrame,
    rates: Mapping[tuple[str, str], Mapping[str, float]],
    published: pd.DataFrame,
) -> pd.DataFrame:
    """Counts of layers and kappas a reference, here and published.

    Args:
        gaps: Rows of `gap_table`, all pairs.
        rates: Of `behaviour_rates`, by (pair, role).
        published: The released per-layer values (`spectral_gap_llama_per_layer.csv`).

    Returns:
        Table `spectral_gap_summary`. `layers` are those where S is not zero, the published
        denominator; the others of `depth` are counted in `no_difference`. A row `all` joins a
        pair's references.
    """
    rows = []
    for source, table in (("here", gaps), ("published", from_published(published))):
        for pair, of_pair in table.groupby("pair", sort=False):
            for reference, part in [*of_pair.groupby("reference", sort=False), ("all", of_pair)]:
                head = {"source": source, "pair": pair, "reference": reference}
                rows.append({**head, **_counts(part), **_behaviour(rates, str(pair), reference)})
    return pd.DataFrame(rows, columns=list(COLUMNS["spectral_gap_summary"]))


def _counts(part: pd.DataFrame) -> dict[str, Any]:
    moved = part[part["status"] != "no difference"]
    able = moved[moved["status"] == "informative"]
    return {
        "depth": part["layer"].nunique(),
        "layers": len(moved),
        "no_difference": len(part) - len(moved),
        "rank_too_high": len(moved) - len(able),
        "informative": len(able),
        "above_8": int((moved["kappa"] > KAPPA_THRESHOLD).sum()),
        "kappa_median": moved["kappa"].median(),
        "kappa_max": moved["kappa"].max(),
        "kappa_over_bound_median": moved["kappa_over_bound"].median(),
        "kappa_over_bound_max": moved["kappa_over_bound"].max(),
        "rank_S_median": moved["rank_S"].median(),
    }


def _behaviour(
    rates: Mapping[tuple[str, str], Mapping[str, float]], pair: str, reference: Any
) -> dict[str, float]:
    unsafe, honest = rates.get((pair, str(reference))), rates.get((pair, "tuned"))
    if unsafe is None or honest is None:
        return {}
    return {**unsafe, **{f"{name}_honest": honest[name] for name in _RATES}}


def from_published(released: pd.DataFrame) -> pd.DataFrame:
    """The released layers in the columns of the summary; layers it skipped are those with S = 0."""
    depth = int(released["layer"].max()) + 1
    return pd.DataFrame(_released_rows(released, depth))


def _released_rows(released: pd.DataFrame, depth: int) -> Iterator[dict[str, Any]]:
    for reference, part in released.groupby("unsafe_reference", sort=False):
        by_layer = part.set_index("layer")
        for layer in range(depth):
            head = {"pair": "llama", "reference": reference, "layer": layer}
            if layer not in by_layer.index:
                yield {**head, "rank_S": np.nan, "kappa": np.nan, "status": "no difference"}
                continue
            rank, kappa = int(by_layer["rank_eps_S"][layer]), float(by_layer["kappa_emp"][layer])
            # The release used eps = 0.05 throughout.
            bound = 2 / (0.05 * rank)
            status = gap_status(rank, informative=bound > KAPPA_THRESHOLD)
            share = {"kappa_over_bound": kappa / bound, "status": status}
            yield {**head, "rank_S": rank, "kappa": kappa, **share}
