"""The regularised training of a calibration network: through Gram matrices against the direct way.

    python benchmarks/calibration.py [--seed 0] [--steps 40] [--weight 50]

Both train copies of one base network on the same data, in turn, block by block, on one thread:

- fast: the orthogonality and stable-rank terms through the 128 x 128 Gram matrix;
- direct: as printed, M^T M with its n x n identity and a full SVD, differentiated by torch.

Printed are the seconds a step of each, the ratio (median, min-max over blocks), the largest
relative difference of the loss when both are asked about the same network, and that of the two
trainings step by step, which grows because the loss is chaotic. The exit status is 1 where the
ratio is below 3 or the losses of one network differ by more than 1e-4.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from actshift.studies.calibration.stage import (
    LEARNING_RATE,
    N_PROBE,
    N_TRAIN,
    PROBE_SEED,
    TARGET_STABLE_RANK,
    CalibrationNet,
    Inputs,
    draw_inputs,
    shift_penalty,
    train,
)

BLOCKS = 5
Penalty = Callable[[Tensor, Tensor], Tensor]


def direct_penalty(live: Tensor, base: Tensor) -> Tensor:
    """|| M^T M - (||M||^2 / n) I ||^2 / ||M||^4 + max(0, T - sr)^2 / T^2, with an n x n matrix."""
    matrix = (live - base).T
    n = matrix.shape[1]
    energy = matrix.square().sum()
    if not bool(energy > 0):
        return energy + 1.0
    orthogonality = (matrix.T @ matrix - energy / n * torch.eye(n)).square().sum()
    stable_rank = energy / torch.linalg.svdvals(matrix)[0].square()
    lack = torch.relu(TARGET_STABLE_RANK - stable_rank) / TARGET_STABLE_RANK
    return orthogonality / energy.square() + lack.square()


class Run:
    """One training that can be stopped and gone on with."""

    def __init__(self, net: CalibrationNet, data: Inputs, penalty: Penalty, weight: float) -> None:
        """Start from a copy of the base network."""
        self.net = copy.deepcopy(net)
        self.data, self.penalty, self.weight = data, penalty, weight
        self.corner = data.safety.nonzero().squeeze(1)
        with torch.no_grad():
            self.base = [layer[self.corner] for layer in net.layers(data.x)]
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE)
        self.losses: list[float] = []

    def loss(self, penalty: Penalty) -> Tensor:
        """Task loss plus lambda times the terms, for the network as it is."""
        layers = self.net.layers(self.data.x)
        task = cross_entropy(self.net.readout(layers[-1]).squeeze(-1), self.data.safe)
        pairs = zip(layers, self.base, strict=True)
        terms = [penalty(live.index_select(0, self.corner), base) for live, base in pairs]
        return task + self.weight * torch.stack(terms).sum()

    def steps(self, count: int) -> float:
        """Take steps; return the seconds they took."""
        began = time.perf_counter()
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = self.loss(self.penalty)
            loss.backward()
            self.optimizer.step()
            self.losses.append(float(loss.detach()))
        return time.perf_counter() - began


def relative(one: float, other: float) -> float:
    return abs(one - other) / abs(other)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40, help="of each way, in all")
    parser.add_argument("--weight", type=float, default=50.0, help="lambda")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = draw_inputs(N_TRAIN, args.seed)
    draw_inputs(N_PROBE, args.seed + PROBE_SEED)
    net = CalibrationNet()
    train(net, data.x, data.task, 300)
    fast = Run(net, data, shift_penalty, args.weight)
    direct = Run(net, data, direct_penalty, args.weight)
    ratios: list[float] = []
    apart: list[float] = []
    seconds = [0.0, 0.0]
    size = max(1, args.steps // BLOCKS)
    for _ in range(BLOCKS):
        times = fast.steps(size), direct.steps(size)
        ratios.append(times[1] / times[0])
        seconds = [total + one for total, one in zip(seconds, times, strict=True)]
        # The same network asked both ways: rounding only, none of the chaos.
        with torch.no_grad():
            asked = [float(fast.loss(way)) for way in (shift_penalty, direct_penalty)]
        apart.append(relative(*asked))
    drift = max(map(relative, fast.losses, direct.losses))
    ratio, worst, steps = statistics.median(ratios), max(apart), size * BLOCKS
    print(f"seed {args.seed}, lambda {args.weight:g}, {steps} steps of each, one thread")
    for name, total in zip(("fast", "direct"), seconds, strict=True):
        print(f"{name:8s}{1000 * total / steps:8.1f} ms a step")
    print(f"direct over fast {ratio:.1f} [{min(ratios):.1f}-{max(ratios):.1f}] (at least 3)")
    print(f"loss of one network, both ways: {worst:.1e} apart (at most 1e-4, relative)")
    print(f"loss of the two trainings, step by step: up to {drift:.1e} apart")
    return int(ratio < 3 or worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
