"""What an intervention does to a residual vector, as plain data: edits, where they act, lanes.

A lane is one condition of a batched intervention: a name and the edits it makes. Studies build
lanes with numpy and never see a model; `hooks.lanes.edit` applies them inside a forward pass. Like
`vocab`, this module is words that every part of the package shares.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

#: Where an edit acts: the input of a block, what its attention or MLP adds to the residual
#: stream (after a post-norm, where the architecture has one), or the output of the block.
EditSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]
#: Which tokens: every one (generated ones too), those of the prompt, or the prompt's last.
EditPositions = Literal["all", "prompt", "last_prompt"]


@dataclass(frozen=True, eq=False)
class Ablate:
    """Project a subspace out: h - U U^T (h - c).

    The `basis` U has orthonormal columns, `[d_model, k]`; the `centre` c, `[d_model]`, is what the
    subspace is set to, zero if None (the published edit).
    """

    basis: Float[np.ndarray, "d_model k"]
    centre: Float[np.ndarray, " d_model"] | None = None


@dataclass(frozen=True, eq=False)
class Steer:
    """Add a multiple of a vector, in units of the residual stream: h + coeff * v."""

    vector: Float[np.ndarray, " d_model"]
    coeff: float = 1.0


@dataclass(frozen=True, eq=False)
class Patch:
    """Move towards the donor's activation: h + alpha * P (h_donor - h).

    The donor is a second model that reads the same tokens in step with the receiver. `alpha` 1
    replaces; P is the span of the orthonormal columns of `basis`, `[d_model, k]`, the whole space
    if None.
    """

    alpha: float = 1.0
    basis: Float[np.ndarray, "d_model k"] | None = None


Edit = Ablate | Steer | Patch


@dataclass(frozen=True, eq=False)
class Placed:
    """An edit at one site of one layer (0-based decoder block), at some tokens."""

    edit: Edit
    layer: int
    site: EditSite = "resid_post"
    positions: EditPositions = "all"


@dataclass(frozen=True, eq=False)
class Lane:
    """One condition of a batched intervention; no edits is the baseline.

    Its name is unique in its batch; several edits at one place act in order; `draw` is the number
    of the draw, for a random control.
    """

    name: str
    edits: tuple[Placed, ...] = ()
    draw: int | None = None

    @property
    def needs_donor(self) -> bool:
        """Whether a second model must run beside the edited one."""
        return any(isinstance(placed.edit, Patch) for placed in self.edits)


def everywhere(name: str, edit: Ablate, *, n_layers: int) -> Lane:
    """A lane that ablates whatever is written to the residual stream, at every token.

    Embedding, attention and MLP output of every block: the directional ablation of Arditi et al.,
    equal to orthogonalising every matrix that writes to the residual stream.

    Source: Arditi et al. 2024 (arXiv 2406.11717), section 2.4 and appendix E.
    """
    writes: list[Placed] = [Placed(edit, 0, "resid_pre")]
    for layer in range(n_layers):
        writes += [Placed(edit, layer, "attn_out"), Placed(edit, layer, "mlp_out")]
    return Lane(name, tuple(writes))
