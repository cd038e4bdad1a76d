"""Knobs of the rank audit, with the published values as defaults, and its layer bands."""

from dataclasses import dataclass

from actshift.errors import UserError
from actshift.vocab import DEFAULT_EPS, Split


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
