"""Files of rule `localization` made up so that the truth is known: what share every lane carries.

A lane of share s moves both log-probs of its receiver by s times the way to the donor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from actshift.io.tables import write_table
from actshift.studies.localization.bases import FITTED, RANDOM, Moments
from actshift.studies.localization.lanes import (
    LENGTHS,
    LaneFacts,
    matched_lanes,
    natural_lanes,
)
from actshift.studies.localization.study import Localization
from actshift.studies.localization.tables.inputs import PairFiles

#: (direction, lane, number of the pair) -> share of the way to the donor.
Share = Callable[[str, LaneFacts, int], float]
#: (operation, part, layer) -> the same for swaps.
SwapShare = Callable[[str, str, int | None], float]
SIDES = {"forward": ("base", "tuned"), "reverse": ("tuned", "base")}
OPERATIONS = {"insert": SIDES["forward"], "remove": SIDES["reverse"]}


def nothing(_direction: str, _facts: LaneFacts, _pair: int) -> float:
    """No lane changes anything."""
    return 0.0


def no_swap(_operation: str, _part: str, _layer: int | None) -> float:
    """No swap changes anything."""
    return 0.0


@dataclass(frozen=True)
class Made:
    """What is made up.

    Attributes:
        share: Of lanes; `identity` carries nothing and `whole_head` all, whatever it says.
        swap: Of swaps.
        layers: Number of decoder blocks.
        gaps: Mean gap of each condition, nats.
        spread: Standard deviation of a cluster's gap.
        pairs: Of each condition, two a cluster.
        width: Of the residual stream.
        ranks: Of bases.
        random_draws: Draws of the random control.
        skip: Experiments that were not run.
    """

    share: Share = nothing
    swap: SwapShare = no_swap
    layers: int = 4
    gaps: Mapping[str, float] = field(default_factory=lambda: {"harmful": 20.0, "harmless": -8.0})
    spread: float = 1.0
    pairs: int = 12
    width: int = 16
    ranks: tuple[int, ...] = (2, 4)
    random_draws: int = 3
    skip: tuple[str, ...] = ()

    def files(self) -> PairFiles:
        """All six files."""
        pairs = self._pairs()
        plain = self._plain(pairs)
        ids = {
            length: pairs.loc[pairs["length"] == length, "pair_id"].tolist() for length in LENGTHS
        }
        scores = {
            (str(length), str(model)): rows[["logp_chosen", "logp_rejected"]].to_numpy()
            for (length, model), rows in plain.groupby(["length", "model"])
        }
        patches, swaps = [], []
        for length in LENGTHS:
            for direction, sides in SIDES.items():
                receiver, donor = (scores[length, model] for model in sides)
                told = {"pair_id": ids[length], "length": length, "direction": direction}
                for facts in self.lanes(length, direction):
                    shares = self._shares(direction, facts, ids[length])
                    patches.append(_moved(receiver, donor, shares, {**told, **facts.row()}))
            for operation, sides in OPERATIONS.items():
                receiver, donor = (scores[length, model] for model in sides)
                told = {"pair_id": ids[length], "length": length, "operation": operation}
                for part, layer in self._units():
                    shares = np.full(len(ids[length]), self.swap(operation, part, layer))
                    own = {**told, "part": part, "layer": np.nan if layer is None else layer}
                    swaps.append(_moved(receiver, donor, shares, own))
        return PairFiles(
            pairs=pairs,
            plain=plain,
            patches=pd.concat(patches, ignore_index=True),
            swaps=pd.concat(swaps, ignore_index=True),
            distances=self._distances(pairs),
            bases=self._bases(),
        )

    def lanes(self, length: str, direction: str) -> list[LaneFacts]:
        """The lanes that the study itself plans."""
        if length == "matched":
            planned = matched_lanes(self.layers)
        else:
            zeros = np.zeros((self.layers, self.width))
            bases = {
                n: np.zeros((self.layers, self.width, max(self.ranks))) for n in (*FITTED, RANDOM)
            }
            partnered = ("shuffled", "other_condition") if len(self.gaps) > 1 else ("shuffled",)
            settings = Localization(
                random_draws=self.random_draws,
                noise_draws=2,
                ranks=self.ranks,
                alphas=(0.0, 0.5, 1.0),
            )
            planned = natural_lanes(
                settings,
                bases,
                Moments(zeros, zeros),
                direction="forward" if direction == "forward" else "reverse",
                partnered=partnered,
                seed=0,
            )
        kept = {name: lanes for name, lanes in planned.items() if name not in self.skip}
        return [one.facts for lanes in kept.values() for one in lanes]

    def _pairs(self) -> pd.DataFrame:
        rows = [
            {
                "pair_id": f"{condition}-{number:02d}",
                "condition": condition,
                "kind": "helpful",
                "category": "any",
                "cluster": f"noun{number // 2}",
                "split": "heldout",
                "length": length,
                "fold": number // 2 % 2,
                "n_prompt": 5,
                "n_chosen": 4,
                "n_rejected": 4 if length == "matched" else 5 + number % 2,
            }
            for length in LENGTHS
            for condition in self.gaps
            for number in range(self.pairs)
        ]
        return pd.DataFrame(rows)

    def _plain(self, pairs: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        by_cluster = rng.standard_normal(self.pairs // 2 + 1)
        rows = []
        for row in pairs.to_dict("records"):
            number = int(str(row["pair_id"]).rsplit("-", 1)[1])
            gap = self.gaps[row["condition"]] + self.spread * by_cluster[number // 2]
            gap += 0.1 * self.spread * (number % 2)
            base = (-30.0 - number, -20.0 + number)
            for model, (up, down) in {"base": (0.0, 0.0), "tuned": (0.6, -0.4)}.items():
                rows.append(
                    {
                        "pair_id": row["pair_id"],
                        "length": row["length"],
                        "model": model,
                        "logp_chosen": base[0] + up * gap,
                        "logp_rejected": base[1] + down * gap,
                    }
                )
        return pd.DataFrame(rows)

    def _shares(self, direction: str, facts: LaneFacts, ids: list[str]) -> np.ndarray:
        if facts.experiment in ("identity", "whole_head"):
            return np.full(len(ids), float(facts.experiment == "whole_head"))
        return np.array([self.share(direction, facts, int(one.rsplit("-", 1)[1])) for one in ids])

    def _units(self) -> list[tuple[str, int | None]]:
        parts = ("block", "attention", "mlp")
        by_layer = [(part, layer) for part in parts for layer in range(self.layers)]
        return [("embeddings", None), *by_layer, ("head", None)]

    def _distances(self, pairs: pd.DataFrame) -> pd.DataFrame:
        rows = [
            {"pair_id": pair, "length": length, "layer": layer, "position": place, "norm": 1.0}
            for pair, length in zip(pairs["pair_id"], pairs["length"], strict=True)
            for layer in range(self.layers)
            for place in ("last_prompt", "last_chosen", "last_rejected")
        ]
        return pd.DataFrame(rows)

    def _bases(self) -> pd.DataFrame:
        """The fold left out holds less than the tokens fitted on, more so in fold 1."""
        rows = [
            {
                "layer": layer,
                "basis": basis,
                "k": k,
                "fold": fold,
                "share": k / self.width + 0.1 * fold,
                "share_fit": 2 * k / self.width,
                "n_fit": 50,
                "n": 30 if fold else 10,
                "d": self.width,
            }
            for basis in (*FITTED, RANDOM)
            for fold in range(2)
            for layer in range(self.layers)
            for k in self.ranks
        ]
        return pd.DataFrame(rows)


def write_files(files: PairFiles, folder: Path) -> None:
    """Write them as the rule does.

    Args:
        files: Of a pair of models.
        folder: Made anew.
    """
    folder.mkdir(parents=True)
    write_table(files.pairs, folder / "pairs.csv")
    write_table(files.bases, folder / "bases.csv")
    for name in ("plain", "patches", "swaps", "distances"):
        getattr(files, name).to_parquet(folder / f"{name}.parquet")


def _moved(
    receiver: np.ndarray, donor: np.ndarray, shares: np.ndarray, told: Mapping[str, object]
) -> pd.DataFrame:
    way = shares[:, None]
    # All of the way is exactly the donor.
    logp = np.where(way == 1, donor, receiver + way * (donor - receiver))
    return pd.DataFrame({**told, "logp_chosen": logp[:, 0], "logp_rejected": logp[:, 1]})
