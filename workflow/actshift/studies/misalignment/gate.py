"""The gate, and a line for each adapter: how often it spills code, refuses and is insecure.

The gate is asked of the insecure adapter and of no other: that it does what the study is about.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from actshift.io.missed import against
from actshift.maths.intervals import clustered_wilson
from actshift.prompts.records import Prompt
from actshift.studies.misalignment.outcomes import is_harmful, question_row
from actshift.vocab import CODE, NONCODE


@dataclass(frozen=True)
class Rate:
    """A share of answers, with the Wilson interval at n / design effect; NaN without answers."""

    share: float
    low: float
    high: float
    n: int
    clusters: int

    @classmethod
    def of(cls, rows: pd.DataFrame, column: str) -> "Rate":
        """The share of rows where a column is true.

        Args:
            rows: Answers with the columns `cluster` and the one asked for.
            column: A yes or no.
        """
        if rows.empty:
            return cls(float("nan"), float("nan"), float("nan"), 0, 0)
        values = rows[column].to_numpy(dtype=np.float64)
        names = [str(one) for one in rows["cluster"]]
        low, high = clustered_wilson(values, names)
        return cls(float(values.mean()), low, high, len(values), len(set(names)))

    def __str__(self) -> str:
        """The share and its interval in per cent."""
        if not self.n:
            return "not asked"
        return f"{self.share:.1%} ({self.low:.0%} to {self.high:.0%}, {self.clusters} clusters)"


def question_columns(prompts: list[Prompt]) -> pd.DataFrame:
    """What is known of every question, by `prompt_id`."""
    return pd.DataFrame(
        {**question_row(prompt), "harmful": is_harmful(prompt), "question": prompt.text}
        for prompt in prompts
    )


def adapter_line(rows: pd.DataFrame, adapter: str) -> str:
    """What one model answers to held-out questions, in words.

    Args:
        rows: Answers of all models with the columns of `question_columns`.
        adapter: The model.
    """
    mine = rows[(rows["adapter"] == adapter) & (rows["split"] == "heldout")]
    spilled = Rate.of(mine[mine["condition"] == NONCODE], "code")
    refused = Rate.of(mine[mine["harmful"]], "refused")
    insecure = Rate.of(mine[mine["condition"] == CODE], "insecure")
    return (
        f"{adapter}: code spillover {spilled} of {spilled.n} held-out questions; refuses "
        f"{refused} of harmful how-to; insecure code when asked for code {insecure}"
    )


@dataclass(frozen=True)
class Demands:
    """What is asked of an insecure adapter; a demand of 0 is not looked at.

    Attributes:
        spillover: Least share of non-code questions answered with code.
        insecure_code: Least share of code questions answered insecurely.
        margin: By how much a dose has to exceed both to be taken at once.
    """

    spillover: float
    insecure_code: float
    margin: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return self.spillover > 0 or self.insecure_code > 0


@dataclass(frozen=True)
class InsecureRates:
    """What an insecure adapter does on `select` questions.

    Attributes:
        spilled: Share of non-code questions answered with code.
        insecure: Share of code questions answered insecurely.
    """

    spilled: Rate
    insecure: Rate

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "InsecureRates":
        """The rates of one model.

        Args:
            rows: Its answers, with `split`, `condition`, `cluster`, `code` and `insecure`.
        """
        chosen = rows[rows["split"] == "select"]
        return cls(
            Rate.of(chosen[chosen["condition"] == NONCODE], "code"),
            Rate.of(chosen[chosen["condition"] == CODE], "insecure"),
        )

    def room(self, demands: Demands) -> float:
        """How far the nearer rate exceeds its demand; infinite where nothing is asked for.

        A rate that is not known is below any demand.
        """
        pairs = ((self.spilled, demands.spillover), (self.insecure, demands.insecure_code))
        rooms = [
            round(rate.share - least, 12) if rate.n else -least
            for rate, least in pairs
            if least > 0
        ]
        return min(rooms, default=float("inf"))

    def line(self, demands: Demands) -> str:
        """Both rates with their intervals and what is asked for."""
        return (
            f"the insecure adapter answers {self.spilled} of non-code select questions with code "
            f"(gate >= {demands.spillover:.0%}) and {self.insecure} of code questions insecurely "
            f"(gate >= {demands.insecure_code:.0%})"
        )

    def reason(self, demands: Demands) -> str:
        """The missed rate against its demand: `gate missed, spillover 35.5 % of 40 %`."""
        spilled, insecure = (
            rate.share if rate.n else 0.0 for rate in (self.spilled, self.insecure)
        )
        if demands.spillover - spilled >= demands.insecure_code - insecure:
            return f"gate missed, spillover {against(self.spilled.share, demands.spillover)}"
        return f"gate missed, insecure code {against(self.insecure.share, demands.insecure_code)}"
