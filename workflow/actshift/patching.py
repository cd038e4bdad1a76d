"""Preference pairs as tokens, and what a patch does to their residual stream, as plain data.

A patch lane is one condition of a patching sweep: at one layer, at a set of positions, the
receiver's states are replaced by, mixed with or pushed towards another run's states. Studies
build lanes with numpy and never see a model; `hooks.patching.staircase` runs them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

#: Which tokens a patch acts on.
PatchPositions = Literal["all", "prompt", "completion", "last_prompt"]
#: Whose final norm and head turn the patched stream into log-probs.
Head = Literal["receiver", "donor"]
#: Which completion the source states were read on: each side its own, or one side for both.
SourceSide = Literal["own", "chosen", "rejected"]
#: The donor reading the same pair; other names are donors reading another pair (`partners`).
DONOR = "donor"
#: The receiver itself: a patch from it is the identity control.
RECEIVER = "receiver"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and its two completions as token ids; nothing is added to them later.

    Attributes:
        id: Unique in its set; decides the noise of noise lanes.
        prompt: Ids up to and including the generation prompt, at least one.
        chosen: Ids of the preferred completion, at least one.
        rejected: Ids of the other one, at least one.
    """

    id: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The completions in the order of every `side` axis: chosen, rejected."""
        return self.chosen, self.rejected


@dataclass(frozen=True, eq=False)
class Take:
    """Move towards the source's state s: h + alpha (t - h), t = P s + (I - P) h.

    Attributes:
        alpha: Mixing weight, 1 replaces.
        basis: Orthonormal columns whose span is P, `[d_model, k]`; None is the whole space.
        keep_rest: Whether the receiver keeps what lies outside the span; if not, t = P s, the
            published low-rank reconstruction.
        source: `DONOR`, `RECEIVER`, or the name of a partner set.
        side: The completion the source states were read on.
    """

    alpha: float = 1.0
    basis: Float[np.ndarray, "d_model k"] | None = None
    keep_rest: bool = True
    source: str = DONOR
    side: SourceSide = "own"


@dataclass(frozen=True, eq=False)
class Contrast:
    """Add the source's state on chosen minus that on rejected: h + alpha (s+ - s-).

    Both sides get the same difference, token by token; nothing is added where one completion has
    ended. At prompt positions the two are one and the same state, so the edit is exactly nothing.

    Attributes:
        alpha: Multiple of the difference.
        source: As in `Take`.
    """

    alpha: float = 1.0
    source: str = DONOR


@dataclass(frozen=True, eq=False)
class Noise:
    """Replace by Gaussian noise of given moments: mean + std * z.

    z depends on the seed, the layer, the pair's id and the token alone, never on the batch.

    Attributes:
        mean: `[d_model]`, of the states that the noise stands in for.
        std: `[d_model]`.
        seed: Number of the draw.
    """

    mean: Float[np.ndarray, " d_model"]
    std: Float[np.ndarray, " d_model"]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Push:
    """Add a direction with the norm that a full patch would have: h + ||s - h|| u.

    Attributes:
        direction: u, of unit length, `[d_model]`.
        source: As in `Take`.
    """

    direction: Float[np.ndarray, " d_model"]
    source: str = DONOR


PatchEdit = Take | Contrast | Noise | Push


@dataclass(frozen=True, eq=False)
class PatchLane:
    """One edit of the receiver's `resid_post` at one layer.

    Attributes:
        name: Unique in its sweep.
        layer: 0-based decoder block whose output is edited.
        edit: What is done.
        positions: At which tokens.
        head: Whose final norm and head score the result.
    """

    name: str
    layer: int
    edit: PatchEdit
    positions: PatchPositions = "all"
    head: Head = "receiver"


def every_layer(
    name: str,
    edit: PatchEdit | Callable[[int], PatchEdit],
    *,
    n_layers: int,
    positions: PatchPositions = "all",
    head: Head = "receiver",
) -> list[PatchLane]:
    """The same lane at each layer, named `<name>@<layer>`.

    Args:
        name: Name without the layer.
        edit: The edit, or a function of the layer (for a basis or moments of its own).
        n_layers: Number of decoder blocks.
        positions: At which tokens.
        head: Whose final norm and head score the result.
    """
    make = edit if callable(edit) else lambda _layer: edit
    return [
        PatchLane(f"{name}@{layer}", layer, make(layer), positions, head)
        for layer in range(n_layers)
    ]


@dataclass(frozen=True, eq=False)
class PairScores:
    """Completion log-probs of pairs, kept apart by side.

    Attributes:
        logp: Sums over completion tokens, in nats, `[..., pair, side]`.
        tokens: Completion tokens, `[pair, side]`.
    """

    logp: Float[np.ndarray, "*lane pair side"]
    tokens: Int[np.ndarray, "pair side"]

    @property
    def margin(self) -> Float[np.ndarray, "*lane pair"]:
        """The preference margin log p(chosen | x) - log p(rejected | x), summed.

        Source: Chaudhury 2025 (arXiv 2510.16167), equation 1.
        """
        return self.logp[..., 0] - self.logp[..., 1]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a patching sweep measured.

    Attributes:
        receiver: Scores of the plain receiver, `[pair, side]`.
        donor: Scores of the plain donor, `[pair, side]`.
        lanes: Scores of every lane, `[lane, pair, side]`, lanes and pairs in the order given.
        halved: How often a batch was cut in two because memory ran out.
    """

    receiver: PairScores
    donor: PairScores
    lanes: PairScores
    halved: int = 0

    @property
    def effect(self) -> Float[np.ndarray, "lane pair"]:
        """Margin of each lane minus that of the plain receiver, in nats."""
        return self.lanes.margin - self.receiver.margin

    @property
    def gap(self) -> Float[np.ndarray, " pair"]:
        """Margin of the donor minus that of the receiver, in nats."""
        return self.donor.margin - self.receiver.margin


@dataclass(frozen=True, eq=False)
class StateSums:
    """Sums over tokens of a model's states, or of the shift between two models; additive.

    Attributes:
        count: Tokens.
        total: Sum of h, `[layer, d_model]`.
        second: Sum of h h^T, uncentred, `[layer, d_model, d_model]`.
    """

    count: int
    total: Float[np.ndarray, "layer d_model"]
    second: Float[np.ndarray, "layer d_model d_model"]

    def basis(self, layer: int, k: int) -> Float[np.ndarray, "d_model k"]:
        """Top right singular vectors of the stacked states: H = U S V^T, first k columns of V."""
        return np.linalg.eigh(self.second[layer])[1][:, ::-1][:, :k]


#: A part of a model whose weights are exchanged.
SwapPart = Literal["embeddings", "block", "attention", "mlp", "head"]


@dataclass(frozen=True, slots=True)
class SwapUnit:
    """What a swap exchanges.

    Attributes:
        part: `embeddings`, `block`, `attention` or `mlp` (a half of a block, its norms included),
            or `head` (final norm and head).
        layer: 0-based decoder block; None for embeddings and head.
    """

    part: SwapPart
    layer: int | None = None

    @property
    def name(self) -> str:
        """The part, with its layer where it has one."""
        return self.part if self.layer is None else f"{self.part}@{self.layer}"


def swap_units(n_layers: int) -> list[SwapUnit]:
    """Embeddings, every block and head, which partition the model; then the halves of every block.

    Args:
        n_layers: Number of decoder blocks.
    """
    halves: tuple[SwapPart, ...] = ("attention", "mlp")
    return [
        SwapUnit("embeddings"),
        *(SwapUnit("block", layer) for layer in range(n_layers)),
        SwapUnit("head"),
        *(SwapUnit(part, layer) for part in halves for layer in range(n_layers)),
    ]
