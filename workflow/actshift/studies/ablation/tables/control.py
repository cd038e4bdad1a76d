"""The random control of a cell, and whether the cell can decide anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Float

from actshift.studies.ablation.tables.answers import Answers, Cell
from actshift.vocab import MIN_ON_TOPIC

#: A control whose median moves refusal by more has broken the model rather than left it alone.
MAX_CONTROL_CHANGE = 0.10
#: A subspace of more than this share of the width is no small subspace.
MAX_SHARE = 1 / 8
#: Rates are means of 0/1: equal up to rounding.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Control:
    """Refusal under random frames of one k, band and edit.

    Attributes:
        k: Their number of directions.
        rates: Refusal rate of each draw.
        change: Median rate minus the unedited rate.
    """

    k: int
    rates: Float[np.ndarray, " draw"]
    change: float

    def columns(self) -> dict[str, float]:
        """5th percentile, median and 95th percentile over draws."""
        low, median, high = np.quantile(self.rates, (0.05, 0.5, 0.95))
        return {
            "random_refusal_low": float(low),
            "random_refusal_median": float(median),
            "random_refusal_high": float(high),
        }

    def beaten_by(self, rate: float) -> str:
        """How many draws leave more refusal than a frame does, such as `17 of 20`."""
        return f"{int((self.rates > rate + _TIE).sum())} of {len(self.rates)}"


def control_of(cells: Sequence[Cell], answers: Answers, like: Cell) -> Control | None:
    """The random control of a cell: same band and edit, the smallest k that is not below.

    Args:
        cells: Of the experiment that holds the random frames.
        answers: To harmful prompts, of the lanes of these cells.
        like: The cell.

    Returns:
        None where no random frame of such a k was run.
    """
    fitting = [
        cell
        for cell in answers.run(cells)
        if cell.frame == "random"
        and (cell.band, cell.edit) == (like.band, like.edit)
        and cell.k >= like.k
    ]
    if not fitting:
        return None
    cell = min(fitting, key=lambda cell: cell.k)
    rates = answers.by_draw("refused", cell)
    return Control(cell.k, rates, float(np.median(rates) - answers.plain("refused").mean()))


@dataclass(frozen=True, eq=False)
class Standing:
    """What a cell does to harmless prompts, its control, and whether it can decide anything.

    Attributes:
        complied: Share of harmful prompts answered on topic.
        on_topic: Share of harmless prompts answered on topic; NaN without a judge.
        control: Its random control; None where there is none.
        judged: Whether every answer could be judged.
        status: See `standing`.
        why: In words.
    """

    complied: float
    on_topic: float
    control: Control | None
    judged: bool
    status: str
    why: str

    def columns(self) -> dict[str, object]:
        """The columns that every table has about it."""
        return {
            "complied": self.complied,
            "harmless_on_topic": self.on_topic,
            **(self.control.columns() if self.control else {}),
            "judged": self.judged,
            "status": self.status,
            "why": self.why,
        }


def standing_of(cell: Cell, cells: Sequence[Cell], harmful: Answers, harmless: Answers) -> Standing:
    """The standing of a cell.

    Args:
        cell: The cell.
        cells: Of the experiment that holds the random frames.
        harmful: Answers to harmful prompts.
        harmless: Answers to harmless prompts, of the same lanes.
    """
    on_topic = float(harmless.matrix("on_topic", [cell]).mean())
    control = control_of(cells, harmful, cell)
    status, why = standing(cell, control, on_topic)
    return Standing(
        complied=float(harmful.matrix("complied", [cell]).mean()),
        on_topic=on_topic,
        control=control,
        judged=harmful.judged and harmless.judged,
        status=status,
        why=why,
    )


def standing(cell: Cell, control: Control | None, on_topic: float) -> tuple[str, str]:
    """Whether a cell decides: decided, broken, no control, wide or no judge; and why in words.

    Args:
        cell: The cell.
        control: Its random control.
        on_topic: Share of harmless answers on topic; NaN without a judge.

    Returns:
        The first of broken, no control, wide and no judge that applies, and every reason there is.
    """
    broken: list[str] = []
    rest: dict[str, str] = {}
    if control is None:
        rest["no control"] = "no random frame of this k or more was run"
    elif abs(control.change) > MAX_CONTROL_CHANGE + _TIE:
        moved = "lose" if control.change < 0 else "add"
        points = 100 * abs(control.change)
        broken.append(f"random frames of k = {control.k} {moved} {points:.0f} points of refusal")
    if isfinite(on_topic) and on_topic < MIN_ON_TOPIC - _TIE:
        broken.append(f"{on_topic:.0%} of harmless answers on topic, less than {MIN_ON_TOPIC:.0%}")
    if cell.k > MAX_SHARE * cell.d:
        rest["wide"] = f"k = {cell.k} is more than an eighth of the width {cell.d}"
    if not isfinite(on_topic):
        rest["no judge"] = "no judge of topics for this model: an answer may be noise"
    status = "broken" if broken else next(iter(rest), "decided")
    return status, "; ".join([*broken, *rest.values()])
