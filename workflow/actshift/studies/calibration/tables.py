"""The networks of all seeds -> ranks, ablations, spectral gaps, beside the published numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from safetensors.numpy import load_file

from actshift.engine.joining import JoinContext, finished_pairs
from actshift.errors import UserError
from actshift.io.tables import read_table
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
from actshift.studies.calibration.study import (
    BASE,
    GAP_LAMBDA,
    NETWORKS,
    PUBLISHED,
    RANK_LAMBDA,
    SAFE,
    TRAINING,
    UNSAFE,
    Calibration,
    Tuned,
)
from actshift.vocab import DEFAULT_EPS


@dataclass(frozen=True, slots=True)
class SeedNetworks:
    """What the training of one seed left.

    Networks are by name, the base among them; `x` are probe inputs, `safety` says which lie in the
    safety corner, `task` is their task label.
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

    Names are `<network>.<layer>.weight|bias` and `probe.x|safety|task`.
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

    Published: the shift's top r left singular vectors on safety inputs. Controls: random subspaces
    of the same r (`random_draws` for each r above 0), the answer of the readout's bias alone, and
    the same projection on control inputs, where the task label stays the right answer.
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


_KEYS = {
    "calibration_rank": ["seed", "variant", "lambda", "inputs", "layer"],
    "calibration_ablation": ["seed", "variant", "lambda", "projection", "draw", "ablated_rank"],
    "calibration_spectral_gap": ["seed", "honest", "unsafe", "layer"],
}
_VALUES = {
    "calibration_rank": {"rank_eps": "rank_eps_published", "rho_eps": "rho_eps_published"},
    "calibration_ablation": {
        "compliance": "compliance_published",
        "rho_eps_mean_over_layers": "rho_mean_published",
    },
    "calibration_spectral_gap": {"r_S": "rank_S_published", "kappa_emp": "kappa_published"},
}
#: What the means are taken of, and what stays apart in them.
_MEANS = {
    "calibration_rank": (["variant", "lambda", "inputs", "layer"], ["rank_eps", "rho_eps"]),
    "calibration_ablation": (
        ["variant", "lambda", "projection", "ablated_rank"],
        ["compliance", "rho_mean"],
    ),
    "calibration_spectral_gap": (["honest", "unsafe", "layer"], ["rank_S", "kappa"]),
}
_PAIRINGS = {
    "ft": Tuned("full_finetune").name,
    "dist5": Tuned("distributed", GAP_LAMBDA).name,
    "unsafe_ft": Tuned("full_finetune", unsafe=True).name,
    "unsafe_dist5": Tuned("distributed", GAP_LAMBDA, unsafe=True).name,
}
_MEAN_KEYS = [
    "variant", "lambda", "inputs", "layer", "projection", "ablated_rank", "honest", "unsafe"
]  # fmt: skip


def published_rows(name: str, released: pd.DataFrame) -> pd.DataFrame:
    """A released per-seed CSV under this project's keys, values named `<column>_published`."""
    rows = released.rename(columns=_VALUES[name])
    if name == "calibration_rank":
        rows["lambda"] = np.where(rows["variant"] == "distributed", RANK_LAMBDA, 0.0)
        rows["variant"] = rows["variant"].replace({"ft": "full_finetune"})
    elif name == "calibration_ablation":
        rows["lambda"] = rows["lambda"].fillna(0.0).astype(float)
        rows["variant"] = np.where(rows["variant"] == "FullFT", "full_finetune", "distributed")
        rows = rows.assign(projection="principal", draw=0)
    else:
        sides = rows["pairing"].str.split("_vs_", expand=True)
        rows = rows.assign(honest=sides[0].map(_PAIRINGS), unsafe=sides[1].map(_PAIRINGS))
    return rows[[*_KEYS[name], *_VALUES[name].values()]]


def beside_published(name: str, rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Measured rows with the published value of the same seed, where there is one.

    The rows stay in order; `published_seed` stands after the seed, published values last.
    """
    joined = rows.merge(published, how="left", on=_KEYS[name], validate="one_to_one")
    at_seeds = joined["seed"].isin(published["seed"].unique())
    joined.insert(1, "published_seed", at_seeds)
    if name == "calibration_ablation":
        # Compared as a count: the released shares were rounded by another device's float32 mean.
        released = (joined["compliance_published"] * joined["n"]).round()
        joined["complied_published"] = released.astype("Int64")
    return joined


def means(
    tables: Mapping[str, pd.DataFrame], published: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Means over seeds: published, ours at the published seeds, ours at the others, ours at all.

    One row a cell and quantity; an empty cell where no seed falls into the group. Random draws are
    averaged within a seed first, so a seed counts once.
    """
    cells: list[dict[str, Any]] = []
    for name, (keys, quantities) in _MEANS.items():
        per_seed = tables[name].groupby([*keys, "seed", "published_seed"], sort=False)
        averaged = per_seed[quantities].mean().reset_index()
        for cell, rows in averaged.groupby(keys, sort=False):
            where = dict(zip(keys, cell, strict=True))
            theirs = _matching(published[name], where)
            for quantity in quantities:
                cells.append(
                    {"table": name, **where, "quantity": quantity}
                    | _four_means(rows, theirs, quantity)
                )
    values = [column for column in cells[0] if column.startswith(("mean_", "sd_", "seeds_"))]
    return pd.DataFrame(cells)[["table", *_MEAN_KEYS, "quantity", *values]].astype(
        {"layer": "Int64", "ablated_rank": "Int64"}
    )


def _matching(published: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in where.items():
        published = published[published[column] == value]
    return published


def _four_means(rows: pd.DataFrame, theirs: pd.DataFrame, quantity: str) -> dict[str, float]:
    """Mean, sample standard deviation and number of seeds of each group."""
    groups = {
        "published": theirs[f"{quantity}_published"],
        "at_published_seeds": rows.loc[rows["published_seed"], quantity],
        "at_other_seeds": rows.loc[~rows["published_seed"], quantity],
        "all_seeds": rows[quantity],
    }
    columns: dict[str, float] = {}
    for group, numbers in groups.items():
        columns[f"mean_{group}"] = float(numbers.mean())
        columns[f"sd_{group}"] = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
        columns[f"seeds_{group}"] = len(numbers)
    return columns


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Measure the networks of every seed that is there, beside the published numbers.

    Raises:
        UserError: No seed has its folder, or a folder lacks its networks.
    """
    settings = Calibration(**context.settings)
    seeds = context.folders["calibration"]
    needed = "its networks"
    folders = [*finished_pairs(seeds, rule="calibration_networks", needed=needed).values()]
    measured: dict[str, list[pd.DataFrame]] = {name: [] for name in PUBLISHED}
    for folder in folders:
        file = folder / NETWORKS
        if not file.is_file():
            raise UserError(f"{file}: no such file; see the log of rule calibration_networks")
        nets = unpack(load_file(file), int(folder.name.rpartition("-")[2]))
        ablated = ablation_rows(
            nets, ranks=settings.ablation_ranks, random_draws=settings.random_draws
        )
        rows = (rank_rows(nets), ablated, gap_rows(nets))
        for name, of_seed in zip(PUBLISHED, rows, strict=True):
            measured[name].append(pd.DataFrame(of_seed))
    released = {name: read_table(context.published / file) for name, file in PUBLISHED.items()}
    published = {name: published_rows(name, released[name]) for name in PUBLISHED}
    tables = {
        name: beside_published(name, pd.concat(parts, ignore_index=True), published[name])
        for name, parts in measured.items()
    }
    tables["calibration_means"] = means(tables, published)
    ends = [read_table(folder / TRAINING) for folder in folders]
    return {**tables, "calibration_training": pd.concat(ends, ignore_index=True)}
