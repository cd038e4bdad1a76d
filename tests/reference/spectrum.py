"""Slow, obvious versions of the spectral functions: a full SVD and plain loops."""

import numpy as np


def singular_values(rows: np.ndarray) -> np.ndarray:
    return np.linalg.svd(np.asarray(rows, dtype=np.float64), compute_uv=False)


def centre(rows: np.ndarray) -> np.ndarray:
    mean = [float(np.mean(rows[:, j].astype(np.float64))) for j in range(rows.shape[1])]
    return rows.astype(np.float64) - np.array(mean)


def rank_eps(rows: np.ndarray, eps: float) -> int:
    """Count components until their energy reaches 1 - eps (ties within 1e-12 count)."""
    energies = singular_values(rows) ** 2
    total = float(sum(energies))
    if total == 0:
        return 0
    reached = 0.0
    for k, energy in enumerate(energies, start=1):
        reached += float(energy)
        if reached / total >= 1 - eps - 1e-12:
            return k
    raise AssertionError("unreachable")


def repeated_rows(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The resample itself, row by row."""
    return np.array([row for row, count in zip(rows, counts, strict=True) for _ in range(count)])


def heldout_energy(fit: np.ndarray, heldout: np.ndarray, k: int) -> float:
    """Project every held-out row on the first k directions of a full SVD of the fit rows."""
    _, _, directions = np.linalg.svd(fit.astype(np.float64), full_matrices=False)
    kept = total = 0.0
    for row in heldout:
        for direction in directions[:k]:
            kept += float(row @ direction) ** 2
        total += float(row @ row)
    return kept / total
