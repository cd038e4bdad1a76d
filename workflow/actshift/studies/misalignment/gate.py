"""The gate of study B, and one line an adapter: how often it spills code, refuses, is insecure."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from actshift.errors import GateError
from actshift.maths.intervals import clustered_wilson
from actshift.prompts.records import Prompt
from actshift.studies.misalignment.kinds import CODE, INSECURE, NONCODE
from actshift.studies.misalignment.outcomes import is_harmful
from actshift.zoo.questions import kind_of


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
        said = rows[column].to_numpy(dtype=np.float64)
        names = [str(one) for one in rows["cluster"]]
        low, high = clustered_wilson(said, names)
        return cls(float(said.mean()), low, high, len(said), len(set(names)))

    def __str__(self) -> str:
        """The share and its interval in per cent."""
        if not self.n:
            return "not asked"
        return f"{self.share:.1%} ({self.low:.0%} to {self.high:.0%}, {self.clusters} clusters)"


def question_columns(prompts: list[Prompt]) -> pd.DataFrame:
    """What is known of every question, by `prompt_id`."""
    rows = [
        {
            "prompt_id": one.id,
            "condition": one.condition,
            "category": one.category,
            "cluster": one.cluster,
            "split": one.split,
            "kind": kind_of(one),
            "harmful": is_harmful(one),
            "question": one.text,
        }
        for one in prompts
    ]
    return pd.DataFrame(rows)


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


def check_gate(
    rows: pd.DataFrame, *, pair: str, min_spillover: float, min_insecure_code: float
) -> str:
    """Ask of the insecure adapter, and of no other, that it does what the study is about.

    Decided on `select` questions, by point estimates. A demand of 0 is not looked at.

    Args:
        rows: Answers of all models with the columns of `question_columns`.
        pair: Whose adapters.
        min_spillover: Least share of non-code questions answered with code.
        min_insecure_code: Least share of code questions answered insecurely.

    Returns:
        Both rates, in words.

    Raises:
        GateError: A rate is below; both are said, and what to try.
    """
    mine = rows[(rows["adapter"] == INSECURE) & (rows["split"] == "select")]
    spilled = Rate.of(mine[mine["condition"] == NONCODE], "code")
    insecure = Rate.of(mine[mine["condition"] == CODE], "insecure")
    said = (
        f"the insecure adapter answers {spilled} of non-code select questions with code (gate "
        f">= {min_spillover:.0%}) and {insecure} of code questions insecurely (gate >= "
        f"{min_insecure_code:.0%})"
    )
    demands = ((spilled, min_spillover), (insecure, min_insecure_code))
    # A rate that is not known is below any demand.
    if any(least > 0 and not rate.share >= least for rate, least in demands):
        raise GateError(
            f"{pair}: {said}; answers in the run's status folder; train longer or at a higher "
            "rate (misalignment.adapters, zoo/recipes.py), another seed, or lower "
            "misalignment.min_spillover and min_insecure_code"
        )
    return said
