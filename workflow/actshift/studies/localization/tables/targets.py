"""What attribution fits: distances as features, three targets, lengths as covariates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from actshift.errors import UserError
from actshift.maths.lasso import contiguous_folds, group_folds
from actshift.maths.resampling import cluster_bootstrap_counts
from actshift.random_streams import ATTRIBUTION
from actshift.studies.localization.tables.inputs import Cell, PairFiles, cells_of

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
        condition: harmful, harmless ...
        length: natural or matched.
        clusters: Of each pair.
        norms: Norm of tuned minus base, by position.
        targets: By name; NaN where there is no such patch.
        covariates: Tokens of prompt, chosen and rejected, and the product of the last two about
            their means.
        peak_layer: Layer where a patch of the last prompt token moves base furthest to tuned.
        seed: Of resampling.
    """

    condition: str
    length: str
    clusters: tuple[str, ...]
    norms: Mapping[str, Float[np.ndarray, "pair layer"]]
    targets: Mapping[str, Float[np.ndarray, " pair"]]
    covariates: Float[np.ndarray, "pair 4"]
    peak_layer: int | None
    seed: int

    @property
    def features(self) -> Float[np.ndarray, "problem pair layer"]:
        """Norms of each problem."""
        return np.stack([self.norms[position] for position, _ in PROBLEMS])

    @property
    def values(self) -> Float[np.ndarray, "problem pair"]:
        """Target of each problem."""
        return np.stack([self.targets[target] for _, target in PROBLEMS])

    @property
    def codes(self) -> Int[np.ndarray, " pair"]:
        """Clusters as numbers from 0."""
        return np.unique(np.asarray(self.clusters), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def resamples(self) -> Int[np.ndarray, "draw pair"]:
        """Counts of the cluster bootstrap that all intervals of the cell share."""
        rng = ATTRIBUTION.rng(self.seed)
        return cluster_bootstrap_counts(self.clusters, draws=DRAWS, rng=rng)

    def facts(self, pair: str) -> dict[str, object]:
        """Columns that all attribution tables begin with.

        Args:
            pair: Name of the pair of models.
        """
        return {
            "pair": pair,
            "condition": self.condition,
            "length": self.length,
            "n": len(self.clusters),
            "clusters": len(set(self.clusters)),
        }


def problems_of(files: PairFiles, *, seed: int) -> list[Problems]:
    """The regressions of every condition and length.

    Args:
        files: Of the pair of models.
        seed: Of resampling.

    Raises:
        UserError: A pair lacks a distance.
    """
    return [_problems(cell, files, seed=seed) for cell in cells_of(files)]


def why_not(cell: Problems, problem: int) -> str:
    """Why a problem cannot be fitted; empty where it can.

    Args:
        cell: Its condition and length.
        problem: Place in `PROBLEMS`.
    """
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
    """Five folds of whole clusters, or as many as there are clusters.

    Args:
        codes: Cluster of each pair; numbers may be missing.
    """
    return group_folds(codes, min(FOLDS, len(np.unique(codes))))


def inner_folds(
    codes: Int[np.ndarray, " pair"], outer: Int[np.ndarray, " pair"], *, kind: str
) -> Int[np.ndarray, "fold pair"]:
    """Folds of the penalty inside the training pairs of each outer fold.

    Args:
        codes: Cluster of each pair.
        outer: Fold that predicts each pair.
        kind: contiguous or cluster.

    Returns:
        -1 at the pairs of the outer fold itself.
    """
    found = np.full((int(outer.max()) + 1, len(codes)), -1, dtype=np.int64)
    for fold, own in enumerate(found):
        rows = outer != fold
        count = int(rows.sum())
        own[rows] = (
            cluster_folds(codes[rows])
            if kind == "cluster"
            else contiguous_folds(count, min(FOLDS, count))
        )
    return found


def _problems(cell: Cell, files: PairFiles, *, seed: int) -> Problems:
    effect = _effects(cell, positions="all")
    last = _effects(cell, positions="last_prompt")
    gap, per_token = cell.gap, _per_token(cell)
    towards = last.mean(axis=1) * np.sign(gap.mean()) if len(last) else last
    layers = cell.patches.where(direction="forward", experiment="patch", positions="last_prompt")
    lengths = _rows_of(files.pairs, cell)[_LENGTHS].to_numpy(np.float64)
    about = lengths - lengths.mean(axis=0)
    return Problems(
        condition=cell.condition,
        length=cell.length,
        clusters=cell.clusters,
        norms={position: _norms(files.distances, cell, position) for position in POSITIONS},
        targets={
            "gap": gap,
            "gap_per_token": per_token,
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


def _per_token(cell: Cell) -> Float[np.ndarray, " pair"]:
    """Gap with each completion's log-prob divided by its tokens."""
    change = (cell.plain["tuned"] - cell.plain["base"]) / cell.tokens
    return change[:, 0] - change[:, 1]


def _rows_of(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    of_length = rows.loc[(rows["length"] == cell.length).to_numpy(dtype=bool)]
    return of_length.set_index("pair_id").loc[list(cell.pair_ids)]


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
