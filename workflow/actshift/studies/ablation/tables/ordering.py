"""ordering.csv: is variance order causal order, and does refusal fall as k rises?"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from actshift.maths.intervals import discordant_interval
from actshift.maths.ordering import (
    ALPHA,
    MARGIN,
    STABLE_COSINE,
    Exceedance,
    inversion_test,
    monotonicity_test,
    order_tau,
)
from actshift.random_streams import OUTCOMES
from actshift.studies.ablation.tables.answers import (
    DRAWS,
    Answers,
    Cell,
    Rows,
    Standing,
    standing_of,
)
from actshift.studies.ablation.tables.rows import SelfCosines, least_definite, numbers_of


def ordering_rows(
    cells: Sequence[Cell], answers: Mapping[str, Answers], cosines: SelfCosines, *, seed: int
) -> Rows:
    """Every earlier and later direction (or k), those that can be tested with their test.

    Test `inversion`: of single directions, value = refusal taken away, larger = more effect. Test
    `monotonicity`: of the sweep's named frames, value = refusal left. In both a row `exceeds` where
    the later value lies more than 5 points above the earlier one, Holm-corrected over the tested
    pairs of its curve.
    """
    harmful = answers["harmful"]
    cells = harmful.run(cells)
    rows: Rows = []
    for curve in _curves([c for c in cells if c.experiment == "direction" and c.k == 1]):
        curve.sort(key=lambda cell: numbers_of(cell)[0])
        values = harmful.plain("refused") - harmful.matrix("refused", curve)
        stable = np.array([least_definite(cell, cosines) >= STABLE_COSINE for cell in curve])
        standings = [standing_of(cell, cells, answers) for cell in curve]
        rows += _curve_rows(curve, values, stable, standings, harmful.clusters, seed=seed)
    for curve in _curves([c for c in cells if c.experiment == "sweep" and c.frame != "random"]):
        curve.sort(key=lambda cell: cell.k)
        values, stable = harmful.matrix("refused", curve), np.ones(len(curve), dtype=bool)
        standings = [standing_of(cell, cells, answers) for cell in curve]
        rows += _curve_rows(
            curve, values, stable, standings, harmful.clusters, seed=seed, falls=True
        )
    return rows


def _curves(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells of one frame, band and edit, in the order of the lanes."""
    curves: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        curves.setdefault((cell.frame, cell.band, cell.edit), []).append(cell)
    return list(curves.values())


def _curve_rows(
    curve: Sequence[Cell],
    values: Float[np.ndarray, "step prompt"],
    stable: np.ndarray,
    standings: Sequence[Standing],
    clusters: Sequence[str],
    *,
    seed: int,
    falls: bool = False,
) -> Rows:
    """All pairs of one curve; a step that is broken, too wide or not definite is not tested."""
    steps = [cell.k if falls else numbers_of(cell)[0] for cell in curve]
    keep = np.array([step.status in ("decided", "no judge") for step in standings]) & stable
    rng = OUTCOMES.rng(seed)
    if falls:
        tested = monotonicity_test(values[keep], clusters, draws=DRAWS, rng=rng, margin=MARGIN)
        places = np.flatnonzero(keep)
        by_steps = {(int(places[test.earlier]), int(places[test.later])): test for test in tested}
    else:
        tested = inversion_test(values, keep, clusters, draws=DRAWS, rng=rng, margin=MARGIN)
        by_steps = {(test.earlier, test.later): test for test in tested}
    shared = {
        "test": "monotonicity" if falls else "inversion",
        "judged": standings[0].judged,
        **{name: getattr(curve[0], name) for name in ("band", "frame", "edit")},
        "pairs_tested": len(by_steps),
        "kendall_tau": order_tau(values),
    }
    rows: Rows = []
    for earlier, later in combinations(range(len(curve)), 2):
        status, why = _why(standings, stable, steps, (earlier, later))
        gap = values[later] - values[earlier]
        rows.append(
            {
                **shared,
                "stable": bool(stable[earlier] and stable[later]),
                "earlier": steps[earlier],
                "later": steps[later],
                "earlier_value": float(values[earlier].mean()),
                "later_value": float(values[later].mean()),
                **_tested(by_steps.get((earlier, later)), gap, clusters, len(by_steps)),
                "status": status,
                "why": why,
            }
        )
    return rows


def _tested(
    test: Exceedance | None,
    gap: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    tested: int,
) -> dict[str, object]:
    """The test's columns; the upper end stays open where no prompt changed."""
    if test is None:
        return {"exceeds": False}
    names = ("difference", "low", "p", "p_holm", "exceeds")
    _, high = discordant_interval(gap, clusters, level=1 - 2 * ALPHA / tested)
    return {**{name: getattr(test, name) for name in names}, "high": max(test.high, high)}


def _why(
    standings: Sequence[Standing],
    stable: np.ndarray,
    steps: Sequence[int],
    places: tuple[int, int],
) -> tuple[str, str]:
    """Status of a pair of steps: that of the first one that cannot be tested."""
    reasons, statuses = [], []
    for place in places:
        standing = standings[place]
        if standing.status != "decided":
            statuses.append(standing.status)
            reasons.append(f"{steps[place]}: {standing.why}")
        if not stable[place]:
            statuses.append("unstable")
            reasons.append(
                f"{steps[place]}: |cos| with itself below {STABLE_COSINE:g} in some layer"
            )
    return next(iter(statuses), "decided"), "; ".join(reasons)
