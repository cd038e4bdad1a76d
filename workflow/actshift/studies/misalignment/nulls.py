"""Directions that an effect of v is held against, all of v's norm: nulls, and relatives without v.

Every null is a function of a seed and its place alone: the first draws stay when more are drawn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actshift.maths.directions import mean_shift
from actshift.maths.frames import without
from actshift.random_streams import DIRECTION_NULLS
from actshift.studies.misalignment.kinds import NULLS

_Vector = Float[np.ndarray, " d_model"]
_Draws = Float[np.ndarray, "draw d_model"]


@dataclass(frozen=True, eq=False)
class LayerStates:
    """States of one layer at the last prompt token, a row a question.

    Attributes:
        chat: Of the untuned model.
        adapter: Of the adapter that v comes from.
        cluster: Number of each question's cluster, from 0.
    """

    chat: Float[np.ndarray, "prompt d_model"]
    adapter: Float[np.ndarray, "prompt d_model"]
    cluster: Int[np.ndarray, " prompt"]

    @property
    def direction(self) -> _Vector:
        """The direction v = mean(adapter) - mean(chat), float64.

        Source: arXiv 2606.20225 (raw norm kept).
        """
        return mean_shift(self.adapter, self.chat)

    @property
    def shifts(self) -> Float[np.ndarray, "prompt d_model"]:
        """h_adapter - h_chat of each question, float64."""
        return self.adapter.astype(np.float64) - self.chat


def rescaled(rows: _Draws, norm: float) -> _Draws:
    """Each row at a norm: x norm / ||x||.

    Raises:
        ValueError: A row is zero and has no direction.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError("a zero vector has no direction to be rescaled")
    return rows * (norm / lengths)


def orthogonalised(vector: _Vector, v: _Vector) -> _Vector:
    """A vector without its part along v, at the vector's own norm.

    Raises:
        ValueError: Nothing is left.
    """
    left = without(np.asarray(vector, dtype=np.float64), np.asarray(v, dtype=np.float64))
    return rescaled(left[None], float(np.linalg.norm(vector)))[0]


def null_draws(
    name: str, v: _Vector, states: LayerStates, *, draws: int, seed: int, layer: int
) -> _Draws:
    """Draws of one null, at the norm of v.

    - `random`: isotropic Gaussian.
    - `random_span`: sum_p z_p (h_p - mean h), z Gaussian, over the adapter's states: as wide as
      activations are.
    - `orthogonal`: isotropic without the part along v.
    - `shuffled`: mean_p s_c(p) (h_adapter,p - h_chat,p - v) with a fair sign s for each cluster
      c: v with the labels of the two models exchanged at random, less mean_p(s) v. That part is
      kept out because it rules whatever is rescaled to the norm of v: with it the draws of real
      adapters had a cosine of -.98 or .98 with v, and were v itself.

    Args:
        name: One of `NULLS`.
        v: The direction.
        states: Of the questions that v was made from.
        draws: How many.
        seed: Of the run.
        layer: 0-based block; another layer, other draws.

    Raises:
        ValueError: Unknown name, or a draw without direction.

    Source: arXiv 2606.20225 (`random`, `orthogonal`); the other two are of this project.
    """
    rng = DIRECTION_NULLS.rng(seed, NULLS.index(name), layer)
    norm = float(np.linalg.norm(v))
    if name == "random_span":
        adapter = states.adapter.astype(np.float64)
        centred = adapter - adapter.mean(axis=0)
        return rescaled(rng.standard_normal((draws, len(centred))) @ centred, norm)
    if name == "shuffled":
        clusters = int(states.cluster.max()) + 1
        signs = rng.choice([-1.0, 1.0], size=(draws, clusters))
        left = states.shifts - states.direction
        return rescaled(signs[:, states.cluster] @ left, norm)
    rows = rng.standard_normal((draws, len(v)))
    if name == "orthogonal":
        unit = np.asarray(v, dtype=np.float64) / norm
        rows -= (rows @ unit)[:, None] * unit
    return rescaled(rows, norm)
