"""Rows of the intervene stage as arrays, lane by prompt, and lanes as cells of the tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.zoo.judge import topical
from actshift.zoo.language import Language

#: Columns that are read of the rows.
READ = (
    *("prompt_id", "condition", "category", "cluster", "lane"),
    *("text", "refused", "kl_first", "ended", "distinct_2"),
)
#: Rows of one table.
Rows = list[dict[str, object]]
PLAIN = "plain"
#: What makes a cell of lanes.
_KEYS = ["experiment", "frame", "edit", "band", "layers", "k", "d", "directions"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition of an experiment: a lane, or all draws of a random frame.

    Attributes:
        experiment, frame, edit, band, layers, k, d: As in `lanes.csv`.
        directions: Which single directions, or whose direction; None for leading ones.
        lanes: Names of its lanes, one a draw.
        energy_harmful, energy_harmless, shift_share, cos_with_tuned: Means over draws.
    """

    experiment: str
    frame: str
    edit: str
    band: str
    layers: str
    k: int
    d: int
    directions: str | None
    lanes: tuple[str, ...]
    energy_harmful: float
    energy_harmless: float
    shift_share: float
    cos_with_tuned: float

    @property
    def draws(self) -> int | None:
        """Draws of a random frame; None for a frame that is not drawn."""
        return len(self.lanes) if self.frame == "random" else None


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model answered to the prompts of one condition, in every lane.

    Attributes:
        lanes: Lane -> its row in the arrays.
        prompts: Ids, sorted: the order of the arrays' columns.
        clusters: Cluster of each prompt.
        categories: Category of each prompt, such as a kind of harm.
        refused: 0/1, `[lane, prompt]`.
        on_topic: 0/1, NaN without a judge, `[lane, prompt]`.
        kl_first: KL of the first position from the unedited model, nats, `[lane, prompt]`.
        ended: 0/1, `[lane, prompt]`.
        distinct_2: Share of distinct bigrams, `[lane, prompt]`.
    """

    lanes: dict[str, int]
    prompts: tuple[str, ...]
    clusters: list[str]
    categories: list[str]
    refused: Float[np.ndarray, "lane prompt"]
    on_topic: Float[np.ndarray, "lane prompt"]
    kl_first: Float[np.ndarray, "lane prompt"]
    ended: Float[np.ndarray, "lane prompt"]
    distinct_2: Float[np.ndarray, "lane prompt"]

    @cached_property
    def complied(self) -> Float[np.ndarray, "lane prompt"]:
        """Not refused and on topic: a keyword that is gone is not yet an answer."""
        return (1.0 - self.refused) * self.on_topic

    @property
    def judged(self) -> bool:
        """Whether every answer could be judged."""
        return bool(np.isfinite(self.on_topic).all())

    def lanes_of(self, cell: Cell) -> list[str]:
        """The lanes of a cell that were run here: one, or the draws of a random frame."""
        return [name for name in cell.lanes if name in self.lanes]

    def run(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells that have a lane here."""
        return [cell for cell in cells if self.lanes_of(cell)]

    def of(self, what: str, lanes: Sequence[str]) -> Float[np.ndarray, " prompt"]:
        """Mean over some lanes, prompt by prompt."""
        return getattr(self, what)[[self.lanes[name] for name in lanes]].mean(axis=0)

    def plain(self, what: str) -> Float[np.ndarray, " prompt"]:
        """Of the unedited model."""
        return self.of(what, [PLAIN])

    def matrix(self, what: str, cells: Sequence[Cell]) -> Float[np.ndarray, "cell prompt"]:
        """Mean over the draws of each cell, prompt by prompt."""
        return np.array([self.of(what, self.lanes_of(cell)) for cell in cells])

    def by_draw(self, what: str, cell: Cell) -> Float[np.ndarray, " draw"]:
        """Mean over prompts of each lane of a cell."""
        return getattr(self, what)[[self.lanes[name] for name in self.lanes_of(cell)]].mean(axis=1)


def answers_of(rows: pd.DataFrame, lang: Language | None) -> dict[str, Answers]:
    """Arrays of each condition of one file.

    Args:
        rows: Columns `READ`; every lane answers every prompt of a condition once.
        lang: The zoo's language, to judge topics; None for other models.

    Returns:
        Condition -> arrays.

    Raises:
        ValueError: A lane lacks a prompt or answers it twice.
    """
    judged = rows.assign(on_topic=topical(rows["text"], rows["category"], lang))
    groups = judged.groupby("condition", sort=False)
    return {str(condition): _pivot(part, str(condition)) for condition, part in groups}


def _pivot(rows: pd.DataFrame, condition: str) -> Answers:
    lane_codes, lanes = pd.factorize(rows["lane"])
    prompts, first, codes = np.unique(
        rows["prompt_id"].to_numpy(dtype=str), return_index=True, return_inverse=True
    )
    shape = (len(lanes), len(prompts))
    places = lane_codes * shape[1] + codes
    if not np.array_equal(np.bincount(places, minlength=shape[0] * shape[1]), np.ones(len(places))):
        raise ValueError(f"{condition}: not every lane answers every prompt once")

    def matrix(column: str) -> Float[np.ndarray, "lane prompt"]:
        flat = np.empty(len(places))
        flat[places] = rows[column].to_numpy(dtype=np.float64)
        return flat.reshape(shape)

    return Answers(
        lanes={str(name): row for row, name in enumerate(lanes)},
        prompts=tuple(map(str, prompts)),
        clusters=[str(name) for name in rows["cluster"].to_numpy()[first]],
        categories=[str(name) for name in rows["category"].to_numpy()[first]],
        refused=matrix("refused"),
        on_topic=matrix("on_topic"),
        kl_first=matrix("kl_first"),
        ended=matrix("ended"),
        distinct_2=matrix("distinct_2"),
    )


def cells_of(lanes: pd.DataFrame) -> list[Cell]:
    """The cells of `lanes.csv`, in its order, all draws of a random frame as one.

    Args:
        lanes: `lanes.csv`.
    """
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in lanes.to_dict("records"):
        key = tuple(None if pd.isna(row[name]) else row[name] for name in _KEYS)
        groups.setdefault(key, []).append({str(name): value for name, value in row.items()})
    return [_cell(rows) for rows in groups.values()]


def _cell(rows: Sequence[dict[str, Any]]) -> Cell:
    first = rows[0]
    names = ("energy_harmful", "energy_harmless", "shift_share", "cos_with_tuned")
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return Cell(
        experiment=str(first["experiment"]),
        frame=str(first["frame"]),
        edit=str(first["edit"]),
        band=str(first["band"]),
        layers=str(first["layers"]),
        k=int(first["k"]),
        d=int(first["d"]),
        directions=None if pd.isna(first["directions"]) else str(first["directions"]),
        lanes=tuple(str(row["lane"]) for row in rows),
        **means,
    )
