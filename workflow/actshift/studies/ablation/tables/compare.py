"""Many lanes against one another on the same clustered prompts, with shared resamples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.intervals import (
    bootstrap_ends,
    clustered_wilson,
    design_effect,
    discordant_interval,
)
from actshift.maths.paired import mcnemar_exact, sign_flip_test
from actshift.maths.resampling import cluster_mean_draws
from actshift.random_streams import OUTCOMES
from actshift.studies.ablation.tables.answers import Answers, Cell

#: Resamples of intervals, and sign patterns where not all are tried.
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Change:
    """One condition against another, prompt by prompt.

    Attributes:
        rate: Mean of the condition.
        low: Lower end of its Wilson interval at n / design effect.
        high: Upper end.
        change: Mean difference, condition minus reference.
        change_low: Lower end of the interval of the difference, the lower of two: a cluster
            bootstrap's and `discordant_interval`'s, which has a width where nothing changed.
        change_high: Upper end, the higher of the two.
        p: Cluster sign-flip test, two-sided.
        p_mcnemar: Exact McNemar, which assumes independent prompts; NaN for means over draws.
        design_effect: Of the difference.
    """

    rate: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    p: float
    p_mcnemar: float
    design_effect: float


NOTHING = Change(*[float("nan")] * 9)


def changes(
    before: Float[np.ndarray, "row prompt"],
    after: Float[np.ndarray, "row prompt"],
    clusters: Sequence[str],
    *,
    seed: int,
) -> list[Change]:
    """Compare every row of `after` with the same row of `before`.

    Every row is tested with the same seed and resampled by the same counts, so a row's numbers do
    not depend on which other rows there are.

    Args:
        before: Reference outcomes, or means of them over draws.
        after: Outcomes of the conditions.
        clusters: Cluster of each prompt.
        seed: Of resampling.

    Returns:
        One record a row; all NaN where an outcome is NaN (it was not judged).
    """
    gap = after - before
    draws = cluster_mean_draws(gap, clusters, draws=DRAWS, rng=OUTCOMES.rng(seed))
    ends = bootstrap_ends(draws, clusters=len(set(clusters)))
    # Many lanes change every prompt or none: equal rows are compared once.
    known: dict[bytes, Change] = {}
    found = []
    for row in range(len(gap)):
        key = np.concatenate([before[row], after[row]]).tobytes()
        if key not in known:
            judged = np.isfinite(gap[row]).all()
            known[key] = (
                _change(before[row], after[row], clusters, ends[row], seed=seed)
                if judged
                else NOTHING
            )
        found.append(known[key])
    return found


def _change(
    before: Float[np.ndarray, " prompt"],
    after: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    ends: Float[np.ndarray, " end"],
    *,
    seed: int,
) -> Change:
    test = sign_flip_test(before, after, clusters, draws=DRAWS, rng=OUTCOMES.rng(seed))
    low, high = clustered_wilson(after, clusters)
    outer_low, outer_high = discordant_interval(after - before, clusters)
    return Change(
        rate=float(after.mean()),
        low=low,
        high=high,
        change=test.difference,
        change_low=float(np.fmin(ends[0], outer_low)),
        change_high=float(np.fmax(ends[1], outer_high)),
        p=test.p_two_sided,
        p_mcnemar=mcnemar_exact(before, after),
        design_effect=design_effect(after - before, clusters),
    )


def against_plain(cells: Sequence[Cell], answers: Answers, what: str, *, seed: int) -> list[Change]:
    """Compare every cell with the unedited model.

    Args:
        cells: All of them run in `answers`.
        answers: Of one condition.
        what: `refused`, `complied` or `on_topic`.
        seed: Of resampling.

    Returns:
        One record a cell.
    """
    if not cells:
        return []
    after = answers.matrix(what, cells)
    before = np.broadcast_to(answers.plain(what), after.shape)
    return changes(before, after, answers.clusters, seed=seed)


def refusal_columns(refusal: Change, answers: Answers) -> dict[str, object]:
    """The columns that every table has about refusal of harmful prompts.

    Args:
        refusal: A cell against the unedited model.
        answers: To the harmful prompts.
    """
    return {
        "n": len(answers.prompts),
        "clusters": len(set(answers.clusters)),
        "refusal": refusal.rate,
        "refusal_low": refusal.low,
        "refusal_high": refusal.high,
        "plain_refusal": float(answers.plain("refused").mean()),
        "refusal_change": refusal.change,
        "refusal_change_low": refusal.change_low,
        "refusal_change_high": refusal.change_high,
        "p_sign_flip": refusal.p,
        "p_mcnemar_independent": refusal.p_mcnemar,
        "design_effect": refusal.design_effect,
    }
