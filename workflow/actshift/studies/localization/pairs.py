"""The preference pairs of one job: read, tokenised for both models, in folds, in chunks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from actshift.errors import UserError
from actshift.models.load import LoadedModel
from actshift.patching import TokenPair
from actshift.prompts.pair_tokens import Length, encode_pairs
from actshift.prompts.preferences import Preference, read_preferences
from actshift.studies.localization.lanes import PARTNERED

#: Most pairs of a part of a sweep.
_CHUNK = 20
PAIRS_COLUMNS = (
    *("pair_id", "condition", "kind", "category", "cluster", "split", "length", "fold"),
    *("n_prompt", "n_chosen", "n_rejected"),
)


@dataclass(frozen=True)
class PairSet:
    """Pairs of one length, as rows and as tokens, each in a fold; the seed draws partners."""

    length: Length
    rows: list[Preference]
    tokens: list[TokenPair]
    folds: Int[np.ndarray, " pair"]
    seed: int

    @property
    def conditions(self) -> list[str]:
        """Of each pair."""
        return [row.condition for row in self.rows]

    @property
    def clusters(self) -> list[str]:
        """Of each pair."""
        return [row.cluster for row in self.rows]

    def of_fold(self, fold: int) -> list[TokenPair]:
        """Return the pairs of a fold."""
        return [self.tokens[i] for i in np.flatnonzero(self.folds == fold)]

    @cached_property
    def chunks(self) -> list[tuple[int, list[int]]]:
        """(fold, places) of pairs of similar length that a part of a sweep holds."""
        chunks = []
        for fold in sorted(set(self.folds.tolist())):
            places = np.flatnonzero(self.folds == fold).tolist()
            places.sort(key=lambda i: (len(self.tokens[i].prompt), i))
            parts = range(0, len(places), _CHUNK)
            chunks += [(fold, places[start : start + _CHUNK]) for start in parts]
        return chunks

    @cached_property
    def stand_ins(self) -> dict[str, list[TokenPair]]:
        """By name of a partnered experiment, the pair whose donor states are taken."""
        tokens = {}
        for name in PARTNERED:
            other = name == "other_condition"
            places = partners(self.conditions, self.clusters, other=other, seed=self.seed)
            if places is None:
                print(f"{self.length}: no {name} lanes, a pair has no partner")
            else:
                tokens[name] = [self.tokens[i] for i in places]
        return tokens

    def table(self) -> pd.DataFrame:
        """One row a pair, `PAIRS_COLUMNS`."""
        rows = [
            (
                *(row.id, row.condition, row.rejected_kind, row.category, row.cluster, row.split),
                *(self.length, fold, len(pair.prompt), len(pair.chosen), len(pair.rejected)),
            )
            for row, pair, fold in zip(self.rows, self.tokens, self.folds.tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=list(PAIRS_COLUMNS))


def read_pairs(
    path: Path,
    models: Sequence[LoadedModel],
    *,
    folds: int,
    max_tokens: int,
    lengths: Sequence[Length],
    seed: int,
) -> list[PairSet]:
    """Read a set and tokenise it with the chat template of the last model.

    Pairs longer than `max_tokens` are left out and counted in the log.

    Returns:
        One set a length; a pair has the same fold in all of them.

    Raises:
        UserError: The models read different tokens, or fewer than two clusters are left.
    """
    rows = read_preferences(path)
    folded = cluster_folds(
        [row.condition for row in rows], [row.cluster for row in rows], folds=folds, seed=seed
    )
    places = {row.id: place for place, row in enumerate(rows)}
    sets = []
    for length in lengths:
        kept = [
            encode_pairs(
                model.tokenizer,
                rows,
                length=length,
                max_tokens=max_tokens,
                chat_tokenizer=models[-1].tokenizer,
            )
            for model in models
        ]
        if list(kept[0].pairs) != list(kept[-1].pairs):
            raise UserError(
                f"localization: {models[0].name} and {models[-1].name} read the pairs as different "
                "tokens, so neither can be patched into the other; a pair needs one tokenizer for "
                "the study localization"
            )
        print(f"{length}: " + "\n".join(kept[0].lines()))
        index = [places[pair.id] for pair in kept[0].pairs]
        if len({folded[i] for i in index}) < 2:
            raise UserError(
                f"localization: {path} leaves {len(index)} pairs of {length} length in fewer than "
                "two clusters; give more pairs, or raise localization.max_tokens"
            )
        # The folds that are left are numbered from 0 without gaps.
        left = np.unique(folded[index], return_inverse=True)[1]
        sets.append(PairSet(length, [rows[i] for i in index], kept[0].pairs, left, seed))
    return sets


def cluster_folds(
    conditions: Sequence[str], clusters: Sequence[str], *, folds: int, seed: int
) -> Int[np.ndarray, " pair"]:
    """Fold of each pair: the clusters of a condition are dealt out in turn, in a drawn order.

    A cluster lies in one fold, whatever its conditions.

    Returns:
        Numbers from 0; as many folds as clusters where those are fewer.
    """
    fold_of: dict[str, int] = {}
    for condition in sorted(set(conditions)):
        of_condition = {
            cluster for name, cluster in zip(conditions, clusters, strict=True) if name == condition
        }
        fresh = sorted(of_condition - fold_of.keys())
        random.Random(f"localization folds {condition} {seed}").shuffle(fresh)
        start = len(fold_of)
        fold_of |= {cluster: (start + number) % folds for number, cluster in enumerate(fresh)}
    return np.array([fold_of[cluster] for cluster in clusters], dtype=np.int64)


def partners(
    conditions: Sequence[str], clusters: Sequence[str], *, other: bool, seed: int
) -> list[int] | None:
    """For each pair a partner, drawn from a different cluster.

    It is of another condition (the null) or of the same one (genericity).

    Returns:
        Places of the partners; None where a pair has none, such as with one condition alone.
    """
    rng = random.Random(f"localization partners {other} {seed}")
    places = []
    for condition, cluster in zip(conditions, clusters, strict=True):
        fitting = [
            place
            for place, (name, group) in enumerate(zip(conditions, clusters, strict=True))
            if (name != condition) == other and group != cluster
        ]
        if not fitting:
            return None
        places.append(rng.choice(fitting))
    return places
