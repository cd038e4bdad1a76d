"""What attribution fits, and tables `distances` and `probe`.

Distances of the two models' states are features; there are three targets, with lengths as
covariates. A probe is a line from one layer's distance to a target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from actshift.errors import UserError
from actshift.maths.attribution import probes
from actshift.maths.intervals import bootstrap_ends, finite_ends
from actshift.maths.lasso import contiguous_folds, group_folds
from actshift.maths.out_of_fold import gain_out, training_means
from actshift.maths.resampling import cluster_bootstrap_counts
from actshift.random_streams import ATTRIBUTION
from actshift.studies.localization.tables.inputs import Cell, PairFiles, Rows, cells_of

POSITIONS = ("last_prompt", "last_chosen", "last_rejected")
TARGETS = ("gap", "gap_per_token", "patch_effect")
#: Position and target of every problem, in the order of all `problem` axes.
PROBLEMS = tuple(product(POSITIONS, TARGETS))
#: Folds of the published protocol.
FOLDS = 5
#: Resamples of intervals.
DRAWS = 2000
#: A half-sample then holds two clusters, one a fold.
LEAST_CLUSTERS = 4
_LENGTHS = ["n_prompt", "n_chosen", "n_rejected"]


@dataclass(frozen=True, eq=False)
class Problems:
    """Regressions of one condition at one length; pairs in the order of `pairs.csv`.

    Attributes:
        facts: Columns `condition`, `length`, `n` and `clusters`.
        length: natural or matched.
        clusters: Of each pair.
        norms: Norm of tuned minus base, by position.
        targets: By name; NaN where there is no such patch.
        covariates: Tokens of prompt, chosen and rejected, and the product of the last two about
            their means.
        peak_layer: Layer where a patch of the last prompt token moves base furthest to tuned.
        seed: Of resampling.
    """

    facts: Mapping[str, object]
    length: str
    clusters: tuple[str, ...]
    norms: Mapping[str, Float[np.ndarray, "pair layer"]]
    targets: Mapping[str, Float[np.ndarray, " pair"]]
    covariates: Float[np.ndarray, "pair 4"]
    peak_layer: int | None
    seed: int

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return self.norms[POSITIONS[0]].shape[1]

    @property
    def codes(self) -> Int[np.ndarray, " pair"]:
        """Clusters as numbers from 0."""
        return np.unique(np.asarray(self.clusters), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def resamples(self) -> Int[np.ndarray, "draw pair"]:
        """Counts of the cluster bootstrap that all intervals of the cell share."""
        rng = ATTRIBUTION.rng(self.seed)
        return cluster_bootstrap_counts(self.clusters, draws=DRAWS, rng=rng)


def problems_of(files: PairFiles, *, seed: int) -> list[Problems]:
    """The regressions of every condition and length.

    Raises:
        UserError: A pair lacks a distance.
    """
    return [_problems(cell, files, seed=seed) for cell in cells_of(files)]


def why_not(cell: Problems, problem: int) -> str:
    """Why a problem, by its place in `PROBLEMS`, cannot be fitted; empty where it can."""
    position, name = PROBLEMS[problem]
    target, norms = cell.targets[name], cell.norms[position]
    if len(set(cell.clusters)) < LEAST_CLUSTERS:
        return f"{len(set(cell.clusters))} clusters, fewer than {LEAST_CLUSTERS}"
    if not np.isfinite(target).all():
        return f"no {name}: no forward patch of all positions"
    if not np.isfinite(norms).all():
        return f"a distance at {position} is not finite"
    if np.ptp(target) <= 1e-9 * np.abs(target).max():
        return f"{name} is the same in all pairs"
    if (np.ptp(norms, axis=0) <= 1e-9 * np.abs(norms).max(axis=0)).all():
        return f"distances at {position} are the same in all pairs"
    return ""


def cluster_folds(codes: Int[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
    """Five folds of whole clusters, or as many as there are clusters."""
    return group_folds(codes, min(FOLDS, len(np.unique(codes))))


def inner_folds(
    codes: Int[np.ndarray, " pair"], outer: Int[np.ndarray, " pair"], *, kind: str
) -> Int[np.ndarray, "fold pair"]:
    """Folds of the penalty inside the training pairs of each outer fold.

    Folds are of whole clusters (`cluster`) or `contiguous`.

    Returns:
        -1 at the pairs of the outer fold itself.
    """
    folds = np.full((int(outer.max()) + 1, len(codes)), -1, dtype=np.int64)
    for number, inner in enumerate(folds):
        rows = outer != number
        count = int(rows.sum())
        inner[rows] = (
            cluster_folds(codes[rows])
            if kind == "cluster"
            else contiguous_folds(count, min(FOLDS, count))
        )
    return folds


def _problems(cell: Cell, files: PairFiles, *, seed: int) -> Problems:
    effect = _effects(cell, positions="all")
    last = _effects(cell, positions="last_prompt")
    gap = cell.gap
    # With each completion's log-prob divided by its tokens.
    per_token = (cell.plain["tuned"] - cell.plain["base"]) / cell.tokens
    towards = last.mean(axis=1) * np.sign(gap.mean()) if len(last) else last
    layers = cell.patches.where(direction="forward", experiment="patch", positions="last_prompt")
    of_length = files.pairs.loc[(files.pairs["length"] == cell.length).to_numpy(dtype=bool)]
    rows = of_length.set_index("pair_id").loc[list(cell.pair_ids)]
    lengths = rows[_LENGTHS].to_numpy(np.float64)
    about = lengths - lengths.mean(axis=0)
    return Problems(
        facts=cell.facts,
        length=cell.length,
        clusters=cell.clusters,
        norms={position: _norms(files.distances, cell, position) for position in POSITIONS},
        targets={
            "gap": gap,
            "gap_per_token": per_token[:, 0] - per_token[:, 1],
            "patch_effect": effect.mean(axis=0) if len(effect) else np.full(len(gap), np.nan),
        },
        covariates=np.column_stack([lengths, about[:, 1] * about[:, 2]]),
        peak_layer=int(layers.layers[towards.argmax()]) if len(towards) else None,
        seed=seed,
    )


def _effects(cell: Cell, *, positions: str) -> Float[np.ndarray, "layer pair"]:
    """Margin of the patched base minus that of the base."""
    lanes = cell.patches.where(direction="forward", experiment="patch", positions=positions)
    return lanes.logp[:, :, 0] - lanes.logp[:, :, 1] - cell.margins["base"]


def _norms(distances: pd.DataFrame, cell: Cell, position: str) -> Float[np.ndarray, "pair layer"]:
    keep = (distances["length"] == cell.length) & (distances["position"] == position)
    rows = distances.loc[keep.to_numpy(dtype=bool)]
    wide = rows.pivot(index="pair_id", columns="layer", values="norm").sort_index(axis=1)
    norms = wide.reindex(list(cell.pair_ids)).to_numpy(np.float64)
    if not norms.size or np.isnan(norms).any():
        raise UserError(
            f"distances.parquet: a pair of condition {cell.condition} has no distance at "
            f"{position}, {cell.length} length; run the rule localization again"
        )
    return norms


def distance_rows(cell: Problems) -> Rows:
    """Mean norm of tuned minus base at every position and layer.

    `growth` is the mean over that of the layer below, NaN at the first.
    """
    rows: Rows = []
    for position in POSITIONS:
        norms = cell.norms[position]
        draws = (norms.T @ cell.resamples.T) / cell.resamples.sum(axis=1)
        ends = bootstrap_ends(draws, clusters=len(set(cell.clusters)))
        means = norms.mean(axis=0)
        below = np.append(np.nan, np.where(means > 0, means, np.nan)[:-1])
        spread = norms.std(axis=0, ddof=1) if len(norms) > 1 else np.full(len(means), np.nan)
        rows += [
            {
                **cell.facts,
                "position": position,
                "layer": layer,
                "norm": means[layer],
                "norm_low": ends[layer, 0],
                "norm_high": ends[layer, 1],
                "norm_sd": spread[layer],
                "growth": (means / below)[layer],
            }
            for layer in range(len(means))
        ]
    return rows


def probe_rows(cell: Problems) -> Rows:
    """A line for every position, target and layer.

    Intervals resample clusters; that of `r2_out` resamples the squared errors of pairs that their
    line never saw.
    """
    count = len(set(cell.clusters))
    weights = cell.resamples.astype(np.float64)
    rows: Rows = []
    for position, name in PROBLEMS:
        norms, target = cell.norms[position], cell.targets[name]
        whole = probes(norms, target, np.ones(len(target)))
        drawn = probes(norms, target, weights)
        slope = finite_ends(drawn.slope.T, clusters=count)
        r2 = finite_ends(drawn.r2.T, clusters=count)
        out = _out(cell, norms, target)
        rows += [
            {
                **cell.facts,
                "position": position,
                "target": name,
                "layer": layer,
                "slope": whole.slope[layer],
                "slope_low": slope[layer, 0],
                "slope_high": slope[layer, 1],
                "intercept": whole.intercept[layer],
                "r2": whole.r2[layer],
                "r2_low": r2[layer, 0],
                "r2_high": r2[layer, 1],
                "r2_out": out[layer, 0],
                "r2_out_low": out[layer, 1],
                "r2_out_high": out[layer, 2],
            }
            for layer in range(norms.shape[1])
        ]
    return rows


def _out(
    cell: Problems, norms: Float[np.ndarray, "pair layer"], target: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, "layer 3"]:
    """R^2 for pairs of unseen clusters; a line without a slope predicts the training mean."""
    layers, count = norms.shape[1], len(set(cell.clusters))
    if count < LEAST_CLUSTERS:
        return np.full((layers, 3), np.nan)
    outer = cluster_folds(cell.codes)
    training = outer != np.arange(int(outer.max()) + 1)[:, None]
    whole = np.broadcast_to(target, (layers, len(target)))
    means = training_means(whole, outer, training)
    lines = probes(norms, target, training.astype(np.float64))
    predicted = (lines.slope[outer] * norms + lines.intercept[outer]).T
    after = np.where(np.isfinite(predicted), predicted, means)
    return gain_out(whole, means, after, means, cell.resamples, clusters=count)
