"""Settings that decide lanes, and what the rows of a lane say about it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from actshift.patching import PatchEdit, PatchLane, PatchPositions
from actshift.studies.localization.study import Localization

#: Forward: base is patched from tuned. Reverse: tuned from base.
Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")
LENGTHS = ("natural", "matched")
POSITIONS: tuple[PatchPositions, ...] = ("all", "prompt", "completion", "last_prompt")

#: Tables that attribution gives; the others come of patches and swaps.
ATTRIBUTION = ("distances", "probe", "lasso", "lasso_stability")


@dataclass(frozen=True)
class LaneSettings:
    """What decides the lanes, and so stands in the key of unfinished work."""

    random_draws: int
    noise_draws: int
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    seed: int

    @classmethod
    def of(cls, settings: Localization, *, seed: int, d_model: int) -> "LaneSettings":
        """Pick them out of the study's settings, without ranks that are not below the width.

        Args:
            settings: Of the study.
            seed: Of the run.
            d_model: Width of the residual stream.
        """
        ranks = tuple(k for k in settings.ranks if k < d_model) or (1,)
        draws = (settings.random_draws, settings.noise_draws)
        return cls(*draws, ranks=ranks, alphas=settings.alphas, seed=seed)


@dataclass(frozen=True)
class LaneFacts:
    """What names a lane in tables.

    Attributes:
        experiment: patch, interpolation, source, low_rank, identity, noise, random, shuffled,
            other_condition or whole_head.
        layer: 0-based decoder block whose output is edited.
        positions: At which tokens.
        alpha: Weight of the source's states.
        rank: Of the basis; None is the whole space.
        basis: shift, states, base_states or random; None without a basis.
        keep_rest: Whether the receiver keeps what lies outside the basis.
        source: donor, receiver, chosen, rejected, contrast or partner; None for noise.
        draw: Number of a random draw.
    """

    experiment: str
    layer: int
    positions: PatchPositions = "all"
    alpha: float = 1.0
    rank: int | None = None
    basis: str | None = None
    keep_rest: bool = True
    source: str | None = "donor"
    draw: int | None = None

    @property
    def name(self) -> str:
        """Unique in its experiment, direction and fold."""
        parts = [self.experiment, self.positions]
        parts += [] if self.source in (None, "donor") else [self.source]
        parts += [f"a{self.alpha:g}"] if self.experiment == "interpolation" else []
        parts += [] if self.basis is None else [self.basis, f"k{self.rank}"]
        parts += [] if self.keep_rest else ["alone"]
        parts += [] if self.draw is None else [f"d{self.draw}"]
        return f"{'.'.join(parts)}@{self.layer}"

    def row(self) -> dict[str, Any]:
        """The columns of a table, `lane` first."""
        return {"lane": self.name, **asdict(self)}


@dataclass(frozen=True, eq=False)
class Planned:
    """A lane and its facts."""

    lane: PatchLane
    facts: LaneFacts

    @classmethod
    def make(
        cls, facts: LaneFacts, edit: PatchEdit, *, head: Literal["receiver", "donor"] = "receiver"
    ) -> "Planned":
        """Name the lane after its facts.

        Args:
            facts: What the rows say.
            edit: What is done.
            head: Whose final norm and head score it.
        """
        return cls(PatchLane(facts.name, facts.layer, edit, facts.positions, head), facts)
