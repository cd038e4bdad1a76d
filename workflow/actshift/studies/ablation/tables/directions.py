"""Tables `direction_ablation` and `old_or_new`: single directions and sets of them ablated."""

from collections.abc import Mapping, Sequence

import pandas as pd

from actshift.studies.ablation.tables.answers import Answers, Cell, Rows
from actshift.studies.ablation.tables.compare import against_plain, refusal_columns
from actshift.studies.ablation.tables.control import standing_of

#: (frame, layer, direction) -> |cos| of the direction with itself over resamples.
SelfCosines = Mapping[tuple[str, int, int], float]


def self_cosines(directions: pd.DataFrame) -> dict[tuple[str, int, int], float]:
    """Look-up of how definite each direction is.

    Args:
        directions: `directions.csv`.
    """
    columns = (directions[name] for name in ("frame", "layer", "direction", "self_cosine"))
    return {
        (str(frame), int(layer), int(direction)): float(cosine)
        for frame, layer, direction, cosine in zip(*columns, strict=True)
    }


def numbers_of(cell: Cell) -> tuple[int, ...]:
    """The directions of a set, 1-based; the leading k where none are named."""
    if cell.directions is None:
        return tuple(range(1, cell.k + 1))
    return tuple(int(part) for part in cell.directions.split("+"))


def least_definite(cell: Cell, cosines: SelfCosines) -> float:
    """Smallest |cos| with itself over a set's directions and the band's layers; NaN if unknown."""
    values = [
        cosines.get((cell.frame, int(layer), number), float("nan"))
        for layer in cell.layers.split()
        for number in numbers_of(cell)
    ]
    return min(values) if all(value == value for value in values) else float("nan")


def direction_rows(
    cells: Sequence[Cell],
    harmful: Answers,
    harmless: Answers,
    cosines: SelfCosines,
    *,
    pair: str,
    seed: int,
) -> Rows:
    """One row a set of directions.

    Args:
        cells: All of the pair: sets of directions, and the sweep, whose leading directions are the
            set of all that are combined and whose random frames are the controls.
        harmful: Held-out answers to harmful prompts.
        harmless: Held-out answers to harmless prompts.
        cosines: How definite each direction is.
        pair: Name of the pair.
        seed: Of resampling.

    Returns:
        Columns of `direction_ablation`. `interaction` is the set's change of refusal minus the sum
        of its members' changes alone: below 0 the set does more than its parts.
    """
    sets = _sets(harmful.run(cells))
    changes = against_plain([cell for cell, _ in sets], harmful, "refused", seed=seed)
    alone = {
        (cell.frame, numbers_of(cell)): change.change
        for (cell, kind), change in zip(sets, changes, strict=True)
        if kind == "single"
    }
    rows: Rows = []
    for (cell, kind), change in zip(sets, changes, strict=True):
        members = [alone.get((cell.frame, (i,)), float("nan")) for i in numbers_of(cell)]
        rows.append(
            {
                "pair": pair,
                "band": cell.band,
                "frame": cell.frame,
                "edit": cell.edit,
                "kind": kind,
                "directions": "+".join(map(str, numbers_of(cell))),
                "k": cell.k,
                **refusal_columns(change, harmful),
                **standing_of(cell, cells, harmful, harmless).columns(),
                "energy_removed": cell.energy_harmful,
                "self_cosine_min": least_definite(cell, cosines),
                "interaction": None if kind == "single" else change.change - sum(members),
            }
        )
    return rows


def _sets(cells: Sequence[Cell]) -> list[tuple[Cell, str]]:
    """The sets with their kind; all combined directions together are a cell of the sweep."""
    single = [cell for cell in cells if cell.experiment == "direction"]
    # The largest number that stands in any combination: leave-one-out sets are of one fewer.
    combined = max((max(numbers_of(c)) for c in single if c.k > 1), default=0)
    sets = [(cell, _kind(cell, combined)) for cell in single]
    places = {(cell.frame, cell.band, cell.edit) for cell in single}
    sets += [
        (cell, "all_five")
        for cell in cells
        if cell.experiment == "sweep"
        and cell.k == combined == 5
        and (cell.frame, cell.band, cell.edit) in places
    ]
    return sets


def _kind(cell: Cell, combined: int) -> str:
    if cell.k == 1:
        return "single"
    return "leave_one_out" if cell.k == combined - 1 and combined > 3 else "pair"


def old_or_new_rows(
    cells: Sequence[Cell], harmful: Answers, harmless: Answers, *, pair: str, seed: int
) -> Rows:
    """One row a direction (tuned, base or new), band and edit.

    Args:
        cells: All of the pair; the sweep's random frames are the controls.
        harmful: Held-out answers to harmful prompts.
        harmless: Held-out answers to harmless prompts.
        pair: Name of the pair.
        seed: Of resampling.

    Returns:
        Columns of `old_or_new`.
    """
    run = [cell for cell in harmful.run(cells) if cell.experiment == "old_or_new"]
    rows: Rows = []
    for cell, change in zip(run, against_plain(run, harmful, "refused", seed=seed), strict=True):
        rows.append(
            {
                "pair": pair,
                "direction": cell.directions,
                "band": cell.band,
                "edit": cell.edit,
                "cos_with_tuned": cell.cos_with_tuned,
                "energy_removed": cell.energy_harmful,
                **refusal_columns(change, harmful),
                **standing_of(cell, cells, harmful, harmless).columns(),
            }
        )
    return rows
