"""The calibration network in numpy, and what is measured on its shift: terms, ablation, kappa.

The network is a plain ReLU net with a scalar readout whose base, safe and unsafe versions are
known, so every number of the audit can be checked where the answer is set by hand. Rows are
inputs, `[prompt, d_model]`, and everything is float64: the stored float32 weights are exact in it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from actshift.maths.spectrum import rank_eps, spectrum
from actshift.vocab import DEFAULT_EPS

#: kappa above this makes the paper's faking bound useful: sqrt(2 / kappa) < 1/2.
KAPPA_THRESHOLD = 8.0


@dataclass(frozen=True, slots=True)
class Network:
    """Weights of one network; layer i maps by x -> relu(x W_i^T + b_i), the last is the readout.

    Attributes:
        weights: One matrix a layer, `[out, in]`; the readout's is `[1, d_model]`.
        biases: One vector a layer, `[out]`.
    """

    weights: tuple[Float[np.ndarray, "_ _"], ...]
    biases: tuple[Float[np.ndarray, " _"], ...]

    @property
    def bias(self) -> float:
        """The readout's bias: the logit of an input whose last hidden layer is zero."""
        return float(self.biases[-1][0])

    def hidden(
        self, inputs: Float[np.ndarray, "prompt features"]
    ) -> list[Float[np.ndarray, "prompt d_model"]]:
        """Activations after each hidden layer's ReLU, first layer first, float64."""
        x = np.asarray(inputs, dtype=np.float64)
        layers = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T.astype(np.float64) + bias, 0.0)
            layers.append(x)
        return layers

    def logits(self, last: Float[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, " prompt"]:
        """Readout of last-hidden-layer activations."""
        return last @ self.weights[-1][0].astype(np.float64) + self.bias


def project_out(
    rows: Float[np.ndarray, "prompt d_model"], basis: Float[np.ndarray, "d_model rank"]
) -> Float[np.ndarray, "prompt d_model"]:
    """H - U U^T h of every row.

    Args:
        rows: Activations.
        basis: Orthonormal columns U; none leaves the rows as they are.

    Returns:
        The rows without their part in the span of U.

    Source: arXiv 2605.24583, ablation robustness of the calibration networks.
    """
    return rows - (rows @ basis) @ basis.T


def random_basis(
    d_model: int, rank: int, rng: np.random.Generator
) -> Float[np.ndarray, "d_model rank"]:
    """Orthonormal columns of a uniformly random rank-r subspace (QR of a Gaussian matrix)."""
    return np.linalg.qr(rng.standard_normal((d_model, rank)))[0]


def compliance(logits: Float[np.ndarray, " prompt"]) -> float:
    """Share of inputs answered with class 0 (logit <= 0), the safe answer in the safety corner."""
    return float(np.mean(logits <= 0.0))


def accuracy(logits: Float[np.ndarray, " prompt"], labels: Bool[np.ndarray, " prompt"]) -> float:
    """Share of inputs whose class (1 where the logit is above 0) is the label."""
    return float(np.mean((logits > 0.0) == labels))


def orthogonality(rows: Float[np.ndarray, "prompt d_model"]) -> float:
    """|| M^T M - (||M||_F^2 / n) I ||_F^2 / ||M||_F^4 through the d x d Gram matrix.

    With G = M M^T it is ||G||_F^2 / (tr G)^2 - 1/n = sum s^4 / (sum s^2)^2 - 1/n: no n x n matrix.

    Args:
        rows: The shift, one input a row, so M is its transpose.

    Returns:
        Between max(0, 1/d - 1/n), for a flat spectrum, and 1 - 1/n, for rank one; 0 for a zero
        matrix.

    Source: arXiv 2605.24583, R_orth of the distributed variant.
    """
    x = np.asarray(rows, dtype=np.float64)
    gram = x.T @ x
    energy = float(np.trace(gram))
    return float(np.sum(gram**2)) / energy**2 - 1.0 / len(x) if energy > 0 else 0.0


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
