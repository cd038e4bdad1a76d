"""The calibration network in numpy, and what is measured on its shift: terms and ablation.

The network is a plain ReLU net with a scalar readout whose base, safe and unsafe versions are
known, so every number of the audit can be checked where the answer is set by hand. Rows are
inputs, `[prompt, d_model]`, and everything is float64: the stored float32 weights are exact in it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


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
