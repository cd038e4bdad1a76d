"""Muon for small models: all matrices of one shape are orthogonalised in one batch."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: Quintic Newton-Schulz coefficients. Source: Jordan et al. 2024, Muon.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class BatchedMuon(Optimizer):
    """Momentum, orthogonalised: W <- W (1 - lr wd) - lr sqrt(max(1, rows/cols)) NS(G + m M).

    `torch.optim.Muon` gives the same update one matrix at a time and in bfloat16; at these sizes
    the calls cost more than the products, and bfloat16 is slow on many CPUs.
    """

    def __init__(
        self, params: list[Tensor], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """Take 2-D weights only."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight once; `closure` is not supported."""
        if closure is not None:
            raise ValueError("BatchedMuon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                shapes.setdefault(weight.shape, []).append(weight)
            for weights in shapes.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        grads = torch.stack([weight.grad for weight in weights if weight.grad is not None])
        state = self.state[weights[0]]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grads)
        average = state["momentum"].lerp_(grads, 1 - group["momentum"])
        update = orthogonalise(grads.lerp(average, group["momentum"]))
        rows, cols = weights[0].shape
        scale = group["lr"] * max(1.0, rows / cols) ** 0.5
        for weight, change in zip(weights, update, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-scale)


def orthogonalise(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Push all singular values of each matrix towards 1 (roughly .7 to 1.2 after five steps).

    Args:
        matrices: `[matrix, row, column]`.
        steps: Newton-Schulz iterations.

    Returns:
        Matrices with the same singular vectors, `[matrix, row, column]`.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x
