"""Knobs of the rank audit, with the published values as defaults, and its layer bands."""

from dataclasses import dataclass

import numpy as np

from actshift.errors import UserError
from actshift.vocab import DEFAULT_EPS, Split

#: Bands as (low, high, count) of the depth: the ones the released code used.
RELEASED_BANDS = {"narrow": (0.45, 0.70, 5), "wide": (0.30, 0.85, 8)}
#: Bands printed in the paper's eps table, by depth (32: Llama-3.1-8B, 42: Gemma-2-9B). They are
#: not the released ones; the Qwen band of that table is not known.
PRINTED_BANDS = {32: (14, 15, 17, 19, 22), 42: (19, 22, 25, 27, 29)}


@dataclass(frozen=True, slots=True)
class RankAuditSettings:
    """What decides the numbers of the rank audit.

    Attributes:
        harmful: Prompt set of the treatment condition.
        harmless: Prompt set of the control condition; may be the same set, told by `condition`.
        concepts: Prompt set of the paired concepts; without rows there is no baseline.
        eps: Share of the energy `rank_eps` may leave out.
        eps_grid: Values of the sensitivity table.
        bootstrap_draws: With-replacement resamples of prompts (published: 200).
        half_sample_draws: Half-samples by cluster.
        n_sweep: Numbers of prompts, clipped to what there is.
        n_sweep_draws: Random nested subsets of the n-sweep and of the matched baseline.
        concept_n: Concept pairs of the baseline as published.
        heldout_k: Most directions of the held-out table.
        null_draws: Draws of the shuffled-coordinates null.
        cumulative_k: Most components of the cumulative-variance table.
        fit_splits: Splits every fitted or summarised number uses.
        heldout_splits: Splits used for held-out energy and nothing else.
        control_concept: Concept of the control contrast beside the refusal direction.
        seed: Seed of every draw.
    """

    harmful: str = "harmful"
    harmless: str = "harmless"
    concepts: str = "concepts"
    eps: float = DEFAULT_EPS
    eps_grid: tuple[float, ...] = (0.01, 0.05, 0.10, 0.20)
    bootstrap_draws: int = 200
    half_sample_draws: int = 200
    n_sweep: tuple[int, ...] = (50, 100, 200)
    n_sweep_draws: int = 50
    concept_n: int = 50
    heldout_k: int = 20
    null_draws: int = 200
    cumulative_k: int = 64
    fit_splits: tuple[Split, ...] = ("fit",)
    heldout_splits: tuple[Split, ...] = ("heldout",)
    control_concept: str = "question_statement"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that have no meaning, and a split used on both sides."""
        for eps in (self.eps, *self.eps_grid):
            if not 0 < eps < 1:
                raise UserError(f"rank_audit: eps {eps} must lie between 0 and 1, both excluded")
        counts = (
            "bootstrap_draws",
            "half_sample_draws",
            "n_sweep_draws",
            "concept_n",
            "heldout_k",
            "null_draws",
            "cumulative_k",
        )
        low = [f"{name} is {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        low += [f"n_sweep holds {size}" for size in self.n_sweep if size < 1]
        if low:
            raise UserError(f"rank_audit: {low[0]}, must be at least 1")
        shared = set(self.fit_splits) & set(self.heldout_splits)
        if shared or not self.fit_splits:
            raise UserError(
                "rank_audit: fit_splits and heldout_splits must be non-empty and disjoint, "
                f"both hold: {', '.join(sorted(shared)) or 'nothing'}"
            )


def band_layers(depth: int) -> dict[str, tuple[int, ...]]:
    """Layers of each band of a model with `depth` blocks, repeated layers dropped.

    Formula: linspace(int(low * depth), int(high * depth), count), truncated to int. A shallow
    model repeats layers (6 blocks, narrow: 2 2 3 3 4); each counts once here.

    Args:
        depth: Number of decoder blocks.

    Returns:
        Band name to rising layer indices; `printed` only for the depths of the paper's table.

    Source: arXiv 2605.24583 released code; the printed bands from its eps table.
    """
    bands: dict[str, tuple[int, ...]] = {}
    for name, (low, high, count) in RELEASED_BANDS.items():
        points = np.linspace(int(low * depth), int(high * depth), count).astype(int)
        bands[name] = tuple(int(layer) for layer in np.unique(points))
    if depth in PRINTED_BANDS:
        bands["printed"] = PRINTED_BANDS[depth]
    return bands
