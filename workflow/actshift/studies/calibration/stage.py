"""Train the calibration networks of one seed: base, safe variants and unsafe references.

Twenty Gaussian features, a task label from four of them, and a safety corner (three features
above 1) whose safe answer is 0. One base network a seed; every other network starts as its copy.
Full-batch Adam on one thread, so a seed gives the same bits on one kind of machine.
"""

import copy
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from actshift.hooks.reading.memory import keep_freed_memory
from actshift.io.atomic import publishing
from actshift.io.tables import write_table
from actshift.studies.calibration.study import (
    BASE,
    NETWORKS,
    SAFE,
    TRAINING,
    UNSAFE,
    CalibrationEpochs,
)

FEATURES, WIDTH, HIDDEN = 20, 128, 3
N_TRAIN, N_PROBE = 4000, 800
#: Share of the inputs that is moved into the safety corner, and how far beyond 1.
CORNER_SHARE, CORNER_SHIFT = 0.3, 1.1
PROBE_SEED = 7777
LEARNING_RATE = 1e-3
#: The stable rank the regulariser asks for.
TARGET_STABLE_RANK = 64.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs and labels, `[input, feature]` and `[input]`."""

    x: Tensor
    safety: Tensor
    task: Tensor
    safe: Tensor


class CalibrationNet(nn.Module):
    """Three hidden ReLU layers of width 128 and a scalar readout with bias."""

    def __init__(self) -> None:
        """Initialise by torch's default, layer by layer, the readout last."""
        super().__init__()
        sizes = [FEATURES] + [WIDTH] * HIDDEN
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.readout = nn.Linear(WIDTH, 1)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Activations `[input, 128]` after each hidden layer's ReLU."""
        activations: list[Tensor] = []
        for layer in self.hidden:
            x = layer(x).relu_()
            activations.append(x)
        return activations

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[input]`."""
        return self.readout(self.layers(x)[-1]).squeeze(-1)


def draw_inputs(n: int, seed: int) -> Inputs:
    """Draw standard normal inputs and move some into the safety corner until it holds 30 %.

    The task label is 1[x4 x5 - x6 x7 > 0]; the safe label is 0 in the corner (features counted from
    1). Torch's global generator is seeded, and the caller goes on from its state.

    Source: arXiv 2605.24583, calibration networks (released code's random stream).
    """
    torch.manual_seed(seed)
    x = torch.randn(n, FEATURES)
    outside = (~_in_corner(x)).nonzero().squeeze(1)
    wanted = int(CORNER_SHARE * n) - (n - len(outside))
    moved = outside[torch.randperm(len(outside))[:wanted]]
    x[moved, :3] = x[moved, :3].abs() + CORNER_SHIFT
    safety = _in_corner(x)
    task = (x[:, 3] * x[:, 4] - x[:, 5] * x[:, 6] > 0).float()
    return Inputs(x, safety, task, torch.where(safety, 0.0, task))


def _in_corner(x: Tensor) -> Tensor:
    return (x[:, :3] > 1).all(dim=1)


class _Penalty(torch.autograd.Function):
    """R_orth + R_sr of D with its gradient 2 D (dR/dG): two products where autograd takes four."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor) -> Tensor:
        gram = shift.T @ shift
        energy = gram.trace()
        if not bool(energy > 0):  # R_orth is 0 and R_sr is 1 by convention, without a gradient
            ctx.save_for_backward(shift, torch.zeros_like(gram))
            return energy + 1.0
        top = len(gram) - 1
        _, vectors = eigh(gram.numpy(), subset_by_index=[top, top], check_finite=False)
        u = torch.from_numpy(np.ascontiguousarray(vectors[:, 0]))
        largest = u @ gram @ u
        spread = gram.square().sum() / energy.square()
        lack = torch.relu(TARGET_STABLE_RANK - energy / largest) / TARGET_STABLE_RANK
        slope = -2.0 * lack / TARGET_STABLE_RANK
        by_gram = 2.0 / energy.square() * gram - slope * energy / largest.square() * u.outer(u)
        by_gram.diagonal().add_(slope / largest - 2.0 * spread / energy)
        ctx.save_for_backward(shift, by_gram)
        return spread - 1.0 / len(shift) + lack.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        shift, by_gram = ctx.saved_tensors
        return shift @ (2.0 * gradients[0] * by_gram)


def shift_penalty(live: Tensor, base: Tensor) -> Tensor:
    """R_orth + R_sr of one layer's shift, through its 128 x 128 Gram matrix.

    With D = live - base (M = D^T, each `[input, 128]`, base fixed), G = D^T D, t = tr G and s its
    largest eigenvalue, sigma_1^2: R_orth = ||G||_F^2 / t^2 - 1/n and R_sr = max(0, 64 - t/s)^2 /
    64^2. The gradient is exact: dR/dD = 2 D (dR/dG) and ds/dG = u u^T with the top eigenvector u. A
    zero shift, as at the first step, has no gradient.

    Source: arXiv 2605.24583, regularisers of the distributed variant.
    """
    penalty: Tensor = _Penalty.apply(live - base)  # type: ignore[assignment]
    return penalty


def train(
    net: CalibrationNet,
    x: Tensor,
    labels: Tensor,
    epochs: int,
    *,
    corner: Tensor | None = None,
    weight: float = 0.0,
) -> dict[str, float]:
    """Train in place by full-batch Adam; with a corner and a weight, the distributed loss.

    `x` is `[input, 20]`, labels 0 or 1; the start's activations on the `corner` rows are the base
    of the shift; `weight` is lambda. Returns `loss_task` and `loss_penalty` of the last step
    (before its update) and the seconds.
    """
    began = time.perf_counter()
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    regularised = corner is not None and weight > 0
    base = []
    if corner is not None and regularised:
        with torch.no_grad():
            base = [layer.index_select(0, corner) for layer in net.layers(x)]
    task, penalty = torch.zeros(()), torch.zeros(())
    for _ in range(epochs):
        optimizer.zero_grad()
        layers = net.layers(x)
        task = cross_entropy(net.readout(layers[-1]).squeeze(-1), labels)
        loss = task
        if corner is not None and regularised:
            live = (layer.index_select(0, corner) for layer in layers)
            pairs = zip(live, base, strict=True)
            penalty = torch.stack([shift_penalty(*pair) for pair in pairs]).sum()
            loss = task + weight * penalty
        loss.backward()
        optimizer.step()
    return {
        "loss_task": float(task.detach()),
        "loss_penalty": float(penalty.detach()) if regularised else float("nan"),
        "seconds": time.perf_counter() - began,
    }


def train_seed(
    seed: int, epochs: CalibrationEpochs
) -> tuple[dict[str, CalibrationNet], Inputs, pd.DataFrame]:
    """Train every network of one seed, the base once.

    The seed is that of the training data; the probe's is seed + 7777, and the initialisation goes
    on from the probe's stream. Returns networks by name, the probe inputs, and one row a network on
    how its training ended.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    data = draw_inputs(N_TRAIN, seed)
    probe = draw_inputs(N_PROBE, seed + PROBE_SEED)
    corner = data.safety.nonzero().squeeze(1)
    net = CalibrationNet()
    ends = [{"network": BASE, "epochs": epochs.base, **train(net, data.x, data.task, epochs.base)}]
    nets = {BASE: net}
    for tuned in (*SAFE, *UNSAFE):
        steps = epochs.distributed if tuned.weight else epochs.finetune
        labels = data.task if tuned.unsafe else data.safe
        nets[tuned.name] = copy.deepcopy(net)
        end = train(nets[tuned.name], data.x, labels, steps, corner=corner, weight=tuned.weight)
        ends.append({"network": tuned.name, "epochs": steps, **end})
        print(f"{tuned.name}: task loss {end['loss_task']:.4g}, {end['seconds']:.1f} s")
    return nets, probe, pd.DataFrame(ends)


def train_calibration(*, seed: int, epochs: CalibrationEpochs, out: Path) -> None:
    """Write the networks of one seed, its probe inputs and how the training ended."""
    nets, probe, ends = train_seed(seed, epochs)
    arrays = {
        "probe.x": probe.x.numpy(),
        "probe.safety": probe.safety.numpy(),
        "probe.task": probe.task.numpy(),
    }
    for name, net in nets.items():
        for i, layer in enumerate([*net.hidden, net.readout]):
            for part, value in layer.named_parameters():
                arrays[f"{name}.{i}.{part}"] = value.detach().numpy()
    with publishing(out) as partial:
        partial.mkdir(parents=True)
        save_file(arrays, partial / NETWORKS)
        # Seconds are for the log: a table's bytes must not depend on the machine's load.
        write_table(ends.drop(columns="seconds").assign(seed=seed), partial / TRAINING)
