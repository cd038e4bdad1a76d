"""The spectral gap of two shifts: kappa of their difference, and the bound that ties it to a rank.

Both shifts are read on the same prompts, one prompt a row. Where the two models were tuned from one
base, S = M_honest - M_unsafe is the difference of their activations and the base drops out of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from actshift.maths.spectrum import gram, rank_eps, spectrum
from actshift.vocab import DEFAULT_EPS

#: kappa above this makes the paper's faking bound useful: sqrt(2 / kappa) < 1/2.
KAPPA_THRESHOLD = 8.0


@dataclass(frozen=True, slots=True)
class SpectralGap:
    """What separates two shifts at one layer.

    Attributes:
        rank: rank_eps of the separation S; 0 where the two shifts are equal.
        sigma_first: Largest singular value of S.
        sigma_last: Singular value of S at its rank; NaN where S is zero.
        energy: ||S||_F^2.
        energy_honest: ||M_honest||_F^2.
        energy_unsafe: ||M_unsafe||_F^2.
        kappa: sigma_last^2 / (eps (||M_honest||_F^2 + ||M_unsafe||_F^2)); NaN where S is zero.
        bound: 2 / (eps rank), which kappa cannot exceed; NaN where S is zero.
    """

    rank: int
    sigma_first: float
    sigma_last: float
    energy: float
    energy_honest: float
    energy_unsafe: float
    kappa: float
    bound: float

    @property
    def informative(self) -> bool:
        """Whether kappa could exceed the threshold at this rank (2 / (eps rank) > 8)."""
        return self.rank > 0 and self.bound > KAPPA_THRESHOLD


def spectral_gap(
    honest: Float[np.ndarray, "prompt d_model"],
    unsafe: Float[np.ndarray, "prompt d_model"],
    *,
    eps: float = DEFAULT_EPS,
) -> SpectralGap:
    """Kappa of S = M_honest - M_unsafe and its bound 2 / (eps rank_eps(S)).

    The bound holds because sigma_r^2 <= ||S||_F^2 / r and
    ||S||_F^2 <= 2 (||M_honest||_F^2 + ||M_unsafe||_F^2).

    Args:
        honest: Shift of the safely tuned model, one input a row.
        unsafe: Shift of the unsafe reference on the same inputs.
        eps: Share of the energy that the rank leaves out.

    Returns:
        The numbers of one layer.

    Source: arXiv 2605.24583, spectral-gap check.
    """
    separation = np.asarray(honest, dtype=np.float64) - unsafe
    values = spectrum(separation).values
    rank = rank_eps(values, eps)
    energies = [float(np.sum(np.square(m, dtype=np.float64))) for m in (honest, unsafe)]
    last = float(values[rank - 1]) if rank else float("nan")
    return SpectralGap(
        rank=rank,
        sigma_first=float(values[0]) if values.size else 0.0,
        sigma_last=last,
        energy=float(np.sum(np.square(separation))),
        energy_honest=energies[0],
        energy_unsafe=energies[1],
        kappa=last**2 / (eps * sum(energies)) if rank else float("nan"),
        bound=2.0 / (eps * rank) if rank else float("nan"),
    )


def resampled_kappas(
    honest: Float[np.ndarray, "prompt d_model"],
    unsafe: Float[np.ndarray, "prompt d_model"],
    members: Bool[np.ndarray, "draw prompt"],
    *,
    eps: float = DEFAULT_EPS,
) -> Float[np.ndarray, " draw"]:
    """Kappa of subsamples of the prompts, through one Gram matrix of the separation.

    Args:
        honest: Shift of the safely tuned model, one input a row.
        unsafe: Shift of the unsafe reference on the same inputs.
        members: Which prompts each draw holds.
        eps: Share of the energy that the rank leaves out.

    Returns:
        One kappa a draw, each with its own rank; NaN where the draw is empty or S is zero in it.

    Numerics:
        The smallest value needed holds a share of the energy of at least eps / n, so squared
        singular values from a float64 Gram matrix are exact to about 1e-12 of it.
    """
    products = gram(np.asarray(honest, dtype=np.float64) - unsafe)
    shifts = np.square(honest, dtype=np.float64).sum(axis=1)
    shifts += np.square(unsafe, dtype=np.float64).sum(axis=1)
    kappas = np.full(len(members), np.nan)
    for draw, kept in enumerate(members):
        if np.trace(inside := products[np.ix_(kept, kept)]) <= 0:
            continue
        squares = np.clip(np.linalg.eigvalsh(inside)[::-1], 0.0, None)
        rank = rank_eps(np.sqrt(squares), eps)
        kappas[draw] = squares[rank - 1] / (eps * shifts[kept].sum())
    return kappas
