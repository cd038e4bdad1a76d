"""One seed's networks -> its rows: ranks, ablations with their controls, spectral gaps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from actshift.maths.calibration import (
    Network,
    accuracy,
    compliance,
    orthogonality,
    project_out,
)
from actshift.maths.frames import random_frame
from actshift.maths.gap import spectral_gap
from actshift.maths.spectrum import rank_eps, spectrum, stable_rank
from actshift.random_streams import RANDOM_SUBSPACES, STEERING
from actshift.studies.calibration.names import BASE, GAP_LAMBDA, SAFE, UNSAFE, Tuned
from actshift.vocab import DEFAULT_EPS


@dataclass(frozen=True, slots=True)
class SeedNetworks:
    """What the training of one seed left.

    Attributes:
        seed: The seed.
        networks: By name, the base among them.
        x: Probe inputs.
        safety: Which of them lie in the safety corner.
        task: Their task labels.
    """

    seed: int
    networks: Mapping[str, Network]
    x: Float[np.ndarray, "prompt features"]
    safety: Bool[np.ndarray, " prompt"]
    task: Bool[np.ndarray, " prompt"]

    def inputs(self, which: str) -> Bool[np.ndarray, " prompt"]:
        """Mask of the "safety" or the "control" inputs."""
        return self.safety if which == "safety" else ~self.safety

    def shifts(self, tuned: Tuned, which: str) -> list[Float[np.ndarray, "prompt d_model"]]:
        """Tuned minus base activations of each hidden layer on those inputs."""
        x = self.x[self.inputs(which)]
        pair = (self.networks[tuned.name].hidden(x), self.networks[BASE].hidden(x))
        return [live - base for live, base in zip(*pair, strict=True)]


def unpack(arrays: Mapping[str, np.ndarray], seed: int) -> SeedNetworks:
    """Sort the arrays of a `networks.safetensors` into networks and probe inputs.

    Args:
        arrays: `<network>.<layer>.weight|bias` and `probe.x|safety|task`.
        seed: Seed they were trained with.
    """
    names = dict.fromkeys(key.rsplit(".", 2)[0] for key in arrays if not key.startswith("probe."))
    networks = {}
    for name in names:
        depth = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in arrays)
        networks[name] = Network(
            weights=tuple(arrays[f"{name}.{i}.weight"] for i in range(depth)),
            biases=tuple(arrays[f"{name}.{i}.bias"] for i in range(depth)),
        )
    task = np.asarray(arrays["probe.task"]) > 0.5
    return SeedNetworks(seed, networks, arrays["probe.x"], arrays["probe.safety"], task)


def rank_rows(nets: SeedNetworks) -> Iterator[dict[str, Any]]:
    """Rank of every variant's shift by layer, on safety and control inputs.

    Steering is the overlay of the paper: one random unit vector a layer times the norm of the
    full fine-tune's mean shift, on safety inputs only, so its rank is 1 by construction.
    """
    rng = STEERING.rng(nets.seed)
    reference = nets.shifts(SAFE[0], "safety")
    steering = [_steering_vector(shift, rng) for shift in reference]
    for which in ("safety", "control"):
        n = int(nets.inputs(which).sum())
        for layer, vector in enumerate(steering):
            rows = np.tile(vector if which == "safety" else np.zeros_like(vector), (n, 1))
            yield _rank_row(nets.seed, "steering", 0.0, which, layer, rows)
        for tuned in SAFE:
            for layer, rows in enumerate(nets.shifts(tuned, which)):
                yield _rank_row(nets.seed, tuned.variant, tuned.weight, which, layer, rows)


def _steering_vector(
    shift: Float[np.ndarray, "prompt d_model"], rng: np.random.Generator
) -> Float[np.ndarray, " d_model"]:
    direction = rng.standard_normal(shift.shape[1])
    return direction / np.linalg.norm(direction) * np.linalg.norm(shift.mean(axis=0))


def _rank_row(
    seed: int, variant: str, weight: float, inputs: str, layer: int, rows: np.ndarray
) -> dict[str, Any]:
    values = spectrum(rows).values
    rank = rank_eps(values)
    return {
        "seed": seed, "variant": variant, "lambda": weight, "inputs": inputs, "layer": layer,
        "n": len(rows), "rank_eps": rank, "rho_eps": rank / rows.shape[1],
        "stable_rank": stable_rank(values), "orthogonality": orthogonality(rows),
    }  # fmt: skip


def ablation_rows(
    nets: SeedNetworks, *, ranks: Sequence[int], random_draws: int
) -> Iterator[dict[str, Any]]:
    """Compliance after projecting r directions out of the last hidden layer, with controls.

    Published: the shift's top r left singular vectors on safety inputs. Controls: random
    subspaces of the same r, the answer of the readout's bias alone, and the same projection on
    control inputs, where the task label stays the right answer.

    Args:
        nets: One seed.
        ranks: r, at most the width.
        random_draws: Random subspaces for each r above 0.
    """
    for number, tuned in enumerate(SAFE):
        net = nets.networks[tuned.name]
        shifts = nets.shifts(tuned, "safety")
        last = spectrum(shifts[-1], k=shifts[-1].shape[1])
        layer_ranks = [rank_eps(spectrum(shift).values) for shift in shifts]
        width = shifts[-1].shape[1]
        fixed = {
            "seed": nets.seed, "variant": tuned.variant, "lambda": tuned.weight,
            "rho_mean": float(np.mean(layer_ranks)) / width, "rank_ablated_layer": layer_ranks[-1],
        }  # fmt: skip
        hidden = {which: net.hidden(nets.x[nets.inputs(which)])[-1] for which in INPUTS}
        labels = nets.task[nets.inputs("control")]
        for rank in ranks:
            bases = {("principal", 0): _completed(last.left, rank)}
            for draw in range(random_draws if rank else 0):
                rng = RANDOM_SUBSPACES.rng(nets.seed, number, rank, draw)
                bases["random", draw] = random_frame(width, rank, rng)
            for (projection, draw), basis in bases.items():
                where = {"projection": projection, "draw": draw, "ablated_rank": rank}
                yield {**fixed, **where, **_behaviour(net, hidden, labels, basis)}


INPUTS = ("safety", "control")


def _completed(
    left: Float[np.ndarray, "d_model component"], rank: int
) -> Float[np.ndarray, "d_model rank"]:
    """First r left singular vectors, filled up to r by an orthonormal rest where M has fewer."""
    if rank <= left.shape[1]:
        return left[:, :rank]
    full, _ = np.linalg.qr(np.concatenate([left, np.eye(len(left))], axis=1))
    return np.concatenate([left, full[:, left.shape[1] : rank]], axis=1)


def _behaviour(
    net: Network, hidden: Mapping[str, np.ndarray], labels: np.ndarray, basis: np.ndarray
) -> dict[str, Any]:
    """What the network answers once the basis is projected out of its last hidden layer."""
    safety, control = (net.logits(project_out(hidden[which], basis)) for which in INPUTS)
    return {
        "n": len(safety),
        "complied": int(np.count_nonzero(safety <= 0)),
        "compliance": compliance(safety),
        "mean_logit": float(safety.mean()),
        "bias": net.bias,
        "bias_sign": int(np.sign(net.bias)),
        "compliance_bias_only": float(net.bias <= 0),
        "mean_logit_minus_bias": float(safety.mean() - net.bias),
        "share_below_bias": float(np.mean(safety < net.bias)),
        "accuracy_control": accuracy(control, labels),
        "answered_0_control": compliance(control),
    }


def gap_rows(nets: SeedNetworks) -> Iterator[dict[str, Any]]:
    """Kappa by layer for each honest network beside each unsafe one, on safety inputs."""
    honest = [tuned for tuned in SAFE if tuned.weight in (0.0, GAP_LAMBDA)]
    for safe in honest:
        for unsafe in UNSAFE:
            shifts = zip(nets.shifts(safe, "safety"), nets.shifts(unsafe, "safety"), strict=True)
            for layer, pair in enumerate(shifts):
                gap = spectral_gap(*pair, eps=DEFAULT_EPS)
                yield {
                    "seed": nets.seed, "honest": safe.name, "unsafe": unsafe.name, "layer": layer,
                    "n": len(pair[0]), "rank_S": gap.rank, "sigma_1_S": gap.sigma_first,
                    "sigma_r_S": gap.sigma_last, "frob_S_sq": gap.energy,
                    "frob_honest_sq": gap.energy_honest, "frob_unsafe_sq": gap.energy_unsafe,
                    "kappa": gap.kappa, "kappa_bound": gap.bound,
                    "kappa_over_bound": gap.kappa / gap.bound, "informative": gap.informative,
                }  # fmt: skip
