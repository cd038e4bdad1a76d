"""Preference pairs as tokens, and what a patch does to their residual stream, as plain data.

A patch lane is one condition of a patching sweep: at one layer, at a set of positions, the
receiver's states are replaced by, mixed with or pushed towards another run's states. Studies
build lanes with numpy and never see a model; `hooks.patching.staircase` runs them.
"""

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

    The id is unique in its set and decides the noise of noise lanes. The prompt goes up to and
    including the generation prompt; none of the three is empty.
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

    `alpha` 1 replaces. P is the span of the orthonormal columns of `basis`, `[d_model, k]`, the
    whole space if None; without `keep_rest`, t = P s, the published low-rank reconstruction.
    `source` is `DONOR`, `RECEIVER`, or the name of a partner set; `side` the completion it was read
    on.
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
    `source` as in `Take`.
    """

    alpha: float = 1.0
    source: str = DONOR


@dataclass(frozen=True, eq=False)
class Noise:
    """Replace by Gaussian noise of given moments, `[d_model]` each: mean + std * z.

    z depends on the seed, the layer, the pair's id and the token alone, never on the batch.
    """

    mean: Float[np.ndarray, " d_model"]
    std: Float[np.ndarray, " d_model"]
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Push:
    """Add a unit vector with the norm that a full patch would have: h + ||s - h|| u."""

    direction: Float[np.ndarray, " d_model"]
    source: str = DONOR


PatchEdit = Take | Contrast | Noise | Push


@dataclass(frozen=True, eq=False)
class PatchLane:
    """One edit of the receiver's `resid_post` at one layer (0-based decoder block).

    The name is unique in its sweep; `head` says whose final norm and head score the result.
    """

    name: str
    layer: int
    edit: PatchEdit
    positions: PatchPositions = "all"
    head: Head = "receiver"


@dataclass(frozen=True, eq=False)
class PairScores:
    """Completion log-probs of pairs, kept apart by side.

    `logp` are sums over completion tokens, in nats, `[..., pair, side]`; `tokens` counts them,
    `[pair, side]`.
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
    """What a patching sweep measured, lanes and pairs in the order given.

    `halved` is how often a batch was cut in two because memory ran out.
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

    `count` tokens, `total` of h, `second` of h h^T, uncentred.
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
    """What a swap exchanges, with the 0-based decoder block of a part that has one.

    `attention` and `mlp` are halves of a block, norms included; `head` is final norm and head.
    """

    part: SwapPart
    layer: int | None = None

    @property
    def name(self) -> str:
        """The part, with its layer where it has one."""
        return self.part if self.layer is None else f"{self.part}@{self.layer}"


def swap_units(n_layers: int) -> list[SwapUnit]:
    """Embeddings, every block and head, which partition the model; then halves of every block."""
    halves: tuple[SwapPart, ...] = ("attention", "mlp")
    return [
        SwapUnit("embeddings"),
        *(SwapUnit("block", layer) for layer in range(n_layers)),
        SwapUnit("head"),
        *(SwapUnit(part, layer) for part in halves for layer in range(n_layers)),
    ]
