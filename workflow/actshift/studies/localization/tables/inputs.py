"""What the localization tables read: the rows of one pair of models, pivoted to arrays once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from actshift.errors import UserError
from actshift.vocab import ROLES, Role

#: Rows of one table.
Rows = list[dict[str, object]]
_SIDES = ["logp_chosen", "logp_rejected"]
_FACTS = (
    *("direction", "experiment", "layer", "positions", "alpha", "rank", "basis"),
    *("keep_rest", "source", "draw"),
)
_UNITS = ("operation", "part", "layer")
#: What names a lane of each file.
_LANE_KEYS = {"plain": ("model",), "patches": ("direction", "lane"), "swaps": _UNITS}


@dataclass(frozen=True, eq=False)
class PairFiles:
    """What the rule `localization` leaves of one pair of models; each file by its name."""

    pairs: pd.DataFrame
    plain: pd.DataFrame
    patches: pd.DataFrame
    swaps: pd.DataFrame
    distances: pd.DataFrame
    bases: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Lanes:
    """Edited models, one a lane, scored on the same pairs.

    Attributes:
        facts: What tells the lanes apart, one row a lane: of patches `direction`, `experiment`,
            `layer`, `positions`, `alpha`, `rank`, `basis`, `keep_rest`, `source` and `draw`; of
            swaps `operation`, `part` and `layer`.
        logp: Log-probs of both completions, nats summed over tokens.
    """

    facts: pd.DataFrame
    logp: Float[np.ndarray, "lane pair 2"]

    def where(self, **wanted: object) -> "Lanes":
        """Lanes with these facts, in the order they had; none where there are no such lanes.

        None is an empty cell.
        """
        keep = np.ones(len(self.facts), dtype=bool)
        for column, value in wanted.items():
            values = self.facts[column]
            keep &= np.asarray(values.isna() if value is None else values == value, dtype=bool)
        return self._at(np.flatnonzero(keep))

    def by_layer(self) -> "Lanes":
        """The same lanes by layer, those of one layer in the order they had."""
        return self._at(np.argsort(self.facts["layer"].to_numpy(np.float64), kind="stable"))

    def values(self, column: str) -> list[object]:
        """The different values of a fact in the order of the lanes, empty cells left out."""
        return list(self.facts[column].dropna().unique())

    def __len__(self) -> int:
        """Number of lanes."""
        return len(self.facts)

    @property
    def layers(self) -> Int[np.ndarray, " lane"]:
        """Layer of each lane; all lanes need one."""
        return self.facts["layer"].to_numpy(np.int64)

    def of_pairs(self, kept: Bool[np.ndarray, " pair"]) -> "Lanes":
        """The same lanes on some of the pairs."""
        return Lanes(self.facts, self.logp[:, kept])

    def _at(self, places: Int[np.ndarray, " kept"]) -> "Lanes":
        return Lanes(self.facts.iloc[places].reset_index(drop=True), self.logp[places])


@dataclass(frozen=True, eq=False)
class Cell:
    """The preference pairs of one condition at one length, and every score they have.

    Attributes:
        condition: harmful, harmless ...
        length: natural or matched.
        pair_ids: In the order of `pairs.csv`; the order of every `pair` axis.
        clusters: Of each pair.
        tokens: Completion tokens.
        plain: Log-probs of the unedited models, by role.
        patches: Patch lanes.
        swaps: Block swaps.
    """

    condition: str
    length: str
    pair_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    tokens: Int[np.ndarray, "pair 2"]
    plain: Mapping[Role, Float[np.ndarray, "pair 2"]]
    patches: Lanes
    swaps: Lanes

    @property
    def facts(self) -> dict[str, object]:
        """Columns that name the cell, and its size."""
        return {
            "condition": self.condition,
            "length": self.length,
            "n": len(self.pair_ids),
            "clusters": len(set(self.clusters)),
        }

    @cached_property
    def margins(self) -> Mapping[Role, Float[np.ndarray, " pair"]]:
        """Log p(chosen) - log p(rejected) of the unedited models, nats, by role."""
        return {role: logp[:, 0] - logp[:, 1] for role, logp in self.plain.items()}

    @cached_property
    def gap(self) -> Float[np.ndarray, " pair"]:
        """Margin of tuned minus margin of base, nats."""
        return self.margins["tuned"] - self.margins["base"]


def cells_of(files: PairFiles) -> list[Cell]:
    """A cell for each condition and length, in the order of `pairs.csv`.

    Raises:
        UserError: A model, lane or unit is not scored on every pair.
    """
    cells = []
    for length, rows in files.pairs.groupby("length", sort=False):
        ids = rows["pair_id"].tolist()
        plain, patches, swaps = (
            _pivot(getattr(files, name), str(length), keys, ids, name=f"{name}.parquet")
            for name, keys in _LANE_KEYS.items()
        )
        for condition in rows["condition"].unique():
            of_condition = (rows["condition"] == condition).to_numpy(dtype=bool)
            pairs = rows.loc[of_condition]
            roles: dict[Role, np.ndarray] = {role: plain.where(model=role).logp for role in ROLES}
            cells.append(
                Cell(
                    condition=str(condition),
                    length=str(length),
                    pair_ids=tuple(pairs["pair_id"]),
                    clusters=tuple(pairs["cluster"].astype(str)),
                    tokens=pairs[["n_chosen", "n_rejected"]].to_numpy(np.int64),
                    plain={
                        role: logp[0][of_condition] for role, logp in roles.items() if len(logp)
                    },
                    patches=patches.of_pairs(of_condition),
                    swaps=swaps.of_pairs(of_condition),
                )
            )
    return cells


def _pivot(
    rows: pd.DataFrame, length: str, keys: Sequence[str], ids: list[str], *, name: str
) -> Lanes:
    """Rows of one length as `[lane, pair, side]`, lanes in the order of their first row."""
    scores = rows.loc[(rows["length"] == length).to_numpy(dtype=bool)]
    place = pd.Index(ids).get_indexer(pd.Index(scores["pair_id"]))
    known = place >= 0
    scores, place = scores.loc[known], place[known]
    lane = np.zeros(len(scores), dtype=np.int64)
    for key in keys:
        codes, names = pd.factorize(scores[key], use_na_sentinel=False)
        lane = lane * len(names) + codes
    lane, _ = pd.factorize(lane)
    firsts = np.unique(lane, return_index=True)[1]
    logp = np.full((len(firsts), len(ids), 2), np.nan)
    logp[lane, place] = scores[_SIDES].to_numpy(np.float64)
    named = [column for column in dict.fromkeys((*_UNITS, *_FACTS, "model")) if column in scores]
    # Plain objects: Arrow's strings are slow to select from a few at a time.
    facts = scores.iloc[firsts][named].astype(object).reset_index(drop=True)
    if np.isnan(logp).any():
        bad, which, _ = np.argwhere(np.isnan(logp))[0]
        lane_name = ", ".join(f"{key} {scores.iloc[firsts[bad]][key]}" for key in keys)
        raise UserError(
            f"{name}: {lane_name} has no score of pair {ids[which]} at {length} length; "
            "run the rule localization again"
        )
    return Lanes(facts, logp)
