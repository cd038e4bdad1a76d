"""The calibration regularisers and kappa the direct way: n x n matrices and full SVDs."""

import numpy as np
import torch
from torch import Tensor


def orthogonality(rows: np.ndarray) -> float:
    m = rows.T.astype(np.float64)
    n = m.shape[1]
    energy = np.linalg.norm(m) ** 2
    return float(np.linalg.norm(m.T @ m - energy / n * np.eye(n)) ** 2 / energy**2)


def penalty(live: Tensor, base: Tensor, target: float = 64.0) -> Tensor:
    """R_orth + R_sr as printed, differentiable."""
    m = (live - base).T
    n = m.shape[1]
    energy = m.square().sum()
    orth = (m.T @ m - energy / n * torch.eye(n, dtype=m.dtype)).square().sum() / energy.square()
    stable = energy / torch.linalg.svdvals(m)[0].square()
    return orth + torch.relu(target - stable).square() / target**2


def kappa(honest: np.ndarray, unsafe: np.ndarray, eps: float) -> tuple[int, float]:
    values = np.linalg.svd(honest - unsafe, compute_uv=False)
    energies = np.cumsum(values**2)
    r = next(k + 1 for k in range(len(values)) if energies[k] >= (1 - eps) * energies[-1] - 1e-9)
    total = np.linalg.norm(honest) ** 2 + np.linalg.norm(unsafe) ** 2
    return r, float(values[r - 1] ** 2 / (eps * total))
