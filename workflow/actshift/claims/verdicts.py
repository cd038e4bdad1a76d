"""Verdicts on published claims: each pair on its own, then k of N, never pooled over models."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite, log
from typing import Literal

import numpy as np
import pandas as pd

from actshift.claims.cells import (
    Measured,
    NotMeasuredError,
    Tables,
    claim_table,
    describe,
    measure_unit,
    per_text,
    unit_names,
)
from actshift.claims.file import CLAIM_COLUMNS, UNIT_COLUMNS, Claim
from actshift.maths.intervals import mean_t_interval, within_margin
from actshift.maths.paired import holm

Verdict = Literal["holds", "fails", "inconclusive", "by construction", "not measured"]
#: Level of the corrected tests.
ALPHA = 0.05
#: With fewer units nothing is said across them.
MIN_UNITS = 3
#: Most units that a reason names.
MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class UnitVerdict:
    """What one pair (or seed) says about a claim.

    Attributes:
        claim: the claim.
        name: the pair or seed; "" where the table is missing, so that nothing is known of units.
        verdict: one of the five.
        reason: why, in one line; "" where the interval speaks for itself.
        measured: value and interval on the scale of the decision; None when not measured.
        p_holm: p after Holm over the study's claims of this unit; NaN without a test.
        too_small: whether the run lacks the rows or the draws, whatever its numbers are.
    """

    claim: Claim
    name: str
    verdict: Verdict
    reason: str
    measured: Measured | None = None
    p_holm: float = float("nan")
    too_small: bool = False


def decide(
    claims: Sequence[Claim],
    tables: Tables,
    pairs: Sequence[str],
    missed: Mapping[tuple[str, str], str] | None = None,
) -> list[UnitVerdict]:
    """Decide every claim for every unit.

    A claim with p values also needs p <= ALPHA after Holm to hold. `tables` are those that exist,
    by (study, table); `pairs` the run's, whether they have tables or not; `missed` the missed gate
    of a claim that is therefore not measured, by (id, pair).
    """
    verdicts = []
    for claim in claims:
        for verdict in _decide_claim(claim, tables, list(pairs)):
            gate = (missed or {}).get((claim.id, verdict.name))
            if gate is not None:
                verdict = UnitVerdict(claim, verdict.name, "not measured", gate)
            verdicts.append(verdict)
    return _corrected(verdicts)


def claims_table(
    claims: Sequence[Claim], units: Sequence[UnitVerdict], larger_run: str = ""
) -> pd.DataFrame:
    """One row a claim: its verdict, k of N, median over units and the span of their intervals.

    A claim holds (or fails) when all units that could be measured agree; else it is inconclusive.

    Args:
        claims: the claims.
        units: what `decide` gave.
        larger_run: command of a larger run, named where this one lacks rows, draws or units.

    Returns:
        Columns `CLAIM_COLUMNS`.
    """
    rows = []
    for claim in claims:
        of_claim = [unit for unit in units if unit.claim.id == claim.id]
        row = _claim_row(claim, of_claim)
        if larger_run and is_too_small(claim, of_claim):
            row["reason"] = f"{row['reason']}; needs the larger run: {larger_run}"
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CLAIM_COLUMNS))


def is_too_small(claim: Claim, units: Sequence[UnitVerdict]) -> bool:
    """Whether a run has too few rows, draws or units to decide a claim, whatever its numbers."""
    if units and all(unit.too_small for unit in units):
        return True
    decided = [unit for unit in units if unit.verdict != "not measured"]
    return claim.across and 0 < len(decided) < MIN_UNITS


def units_table(units: Sequence[UnitVerdict]) -> pd.DataFrame:
    """One row a claim and unit, with columns `UNIT_COLUMNS`; ratios as ratios, not logarithms."""
    rows = [
        {
            "study": unit.claim.study,
            "claim": unit.claim.id,
            "unit": unit.claim.unit,
            "name": unit.name,
            "verdict": unit.verdict,
            "reason": unit.reason,
            "p": unit.measured.p if unit.measured else float("nan"),
            "p_holm": unit.p_holm,
            **_shown(unit.claim, [unit]),
        }
        for unit in units
        if unit.name
    ]
    return pd.DataFrame(rows, columns=list(UNIT_COLUMNS))


def judge(claim: Claim, measured: Measured) -> tuple[Verdict, str]:
    """Compare an interval, on the scale of the decision, with a claim's bound.

    Superiority and ratio hold where the whole interval lies beyond the bound and fail where it lies
    on the other side; equivalence holds inside the margin and fails wholly outside; an inversion
    holds where the value is beyond the bound with its interval above 0. Without an interval nothing
    is decided. Returns verdict and reason.
    """
    low, high = measured.low, measured.high
    if not (isfinite(low) and isfinite(high)):
        return "inconclusive", "no interval for this number"
    if claim.within is not None:
        margin = log(claim.within) if claim.is_ratio else claim.within
        holds, fails = within_margin(low, high, margin), low > margin or high < -margin
    else:
        bound = claim.above if claim.above is not None else claim.below
        assert bound is not None  # the claim file was checked
        bound = log(bound) if claim.is_ratio else bound
        over, under = low > bound, high < bound
        if claim.kind == "inversion":
            over = measured.value > bound and low > 0
        holds, fails = (over, under) if claim.above is not None else (under, over)
    if holds:
        return "holds", ""
    return ("fails", "") if fails else ("inconclusive", "the interval holds the bound")


def rule_text(claim: Claim) -> str:
    """A claim's predicate in words, such as `median log_ratio above 1`."""
    side = next(key for key in ("above", "below", "within") if getattr(claim, key) is not None)
    what = "any" if claim.kind == "inversion" else claim.over
    text = f"{what} {claim.value}{per_text(claim.per)}"
    text += " (as a ratio)" if claim.is_ratio else ""
    text += f" against {describe(claim.versus)}" if claim.versus else ""
    text += f", mean over {claim.unit}s," if claim.across else ""
    text += f" {side} {getattr(claim, side):g}"
    return text + (f", p <= {ALPHA:g} after Holm" if claim.p else "")


def _decide_claim(claim: Claim, tables: Tables, pairs: list[str]) -> list[UnitVerdict]:
    try:
        rows = claim_table(claim, tables)
    except NotMeasuredError as gap:
        names = pairs if claim.unit == "pair" else []
        return [_not_measured(claim, name, gap) for name in names or [""]]
    return [_decide_unit(claim, rows, name) for name in unit_names(claim, rows, pairs)]


def _not_measured(claim: Claim, name: str, gap: NotMeasuredError) -> UnitVerdict:
    return UnitVerdict(claim, name, "not measured", str(gap), too_small=gap.too_small)


def _decide_unit(claim: Claim, rows: pd.DataFrame, name: str) -> UnitVerdict:
    try:
        measured, construction = measure_unit(claim, rows, name)
    except NotMeasuredError as gap:
        return _not_measured(claim, name, gap)
    if construction:
        return UnitVerdict(claim, name, "by construction", construction, measured)
    if claim.across:
        alone, _ = judge(claim, replace(measured, low=measured.value, high=measured.value))
        return UnitVerdict(claim, name, alone, "its value alone", measured)
    return UnitVerdict(claim, name, *judge(claim, measured), measured)


def _corrected(units: Sequence[UnitVerdict]) -> list[UnitVerdict]:
    """Holm over the claims of a study, separately for each unit."""
    fixed = list(units)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, unit in enumerate(units):
        if unit.claim.p and unit.measured and unit.verdict != "by construction":
            key = (unit.claim.study, unit.claim.unit, unit.name)
            groups.setdefault(key, []).append(place)
    for places in groups.values():
        p_values = [
            measured.p for place in places if (measured := units[place].measured) is not None
        ]
        for place, p in zip(places, holm(p_values), strict=True):
            fixed[place] = _with_p(units[place], p)
    return fixed


def _with_p(unit: UnitVerdict, p: float) -> UnitVerdict:
    if unit.verdict == "holds" and not p <= ALPHA:
        reason = f"p = {p:.2g} after Holm" if isfinite(p) else "its p value is missing"
        return replace(unit, verdict="inconclusive", reason=reason, p_holm=p)
    return replace(unit, p_holm=p)


def _claim_row(claim: Claim, units: Sequence[UnitVerdict]) -> dict[str, object]:
    decided = [unit for unit in units if unit.verdict != "not measured"]
    verdict, reason = _overall(units, decided)
    shown = _shown(claim, decided)
    if claim.across and decided and verdict != "by construction":
        verdict, reason, shown = _across(claim, decided)
    named = [unit for unit in units if unit.name]
    holding = sum(unit.verdict == "holds" for unit in named)
    return {
        "study": claim.study,
        "claim": claim.id,
        "statement": claim.statement,
        "verdict": verdict,
        "holds_in": f"{holding} of {len(named)}" if named else "",
        "reason": reason,
        **shown,
        "published": claim.published,
        "kind": claim.kind,
        "decided_by": rule_text(claim),
        "primary_cell": describe(claim.cell),
        "table": f"{claim.table}.csv",
        "source": claim.source,
    }


def _across(claim: Claim, units: Sequence[UnitVerdict]) -> tuple[Verdict, str, dict[str, float]]:
    """Decide by the mean over units and its Student interval: the unit is the seed."""
    values = np.array([unit.measured.value for unit in units if unit.measured is not None])
    low, high = mean_t_interval(values)
    measured = Measured(float(values.mean()), low, high, float("nan"))
    shown = _shown(claim, [UnitVerdict(claim, "", "inconclusive", "", measured)])
    basis = f"mean over {len(values)} {claim.unit}s, Student interval"
    if len(values) < MIN_UNITS:
        return "not measured", f"{basis}: at least {MIN_UNITS} are needed", shown
    verdict, reason = judge(claim, measured)
    return verdict, f"{basis}; {reason}" if reason else basis, shown


def _overall(units: Sequence[UnitVerdict], decided: Sequence[UnitVerdict]) -> tuple[Verdict, str]:
    """The verdict that all measured units share, else inconclusive; reasons with their counts."""
    if not units:
        return "not measured", "no pair has rows"
    verdicts: list[Verdict] = list(dict.fromkeys(unit.verdict for unit in decided))
    overall: Verdict = "not measured" if not verdicts else verdicts[0]
    parts = []
    if len(verdicts) > 1:
        overall = "inconclusive"
        counts = Counter(unit.verdict for unit in decided)
        parts.append(", ".join(f"{name}: {count}" for name, count in counts.items()))
    reasons: dict[str, list[str]] = {}
    for unit in units:
        if unit.reason:
            # The number in brackets differs between pairs; the requirement does not.
            reasons.setdefault(unit.reason.split(" (")[0], []).append(unit.name)
    for reason, names in reasons.items():
        everywhere = len(names) == len(units)
        parts.append(reason if everywhere else f"{_some(names)}: {reason}")
    return overall, "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    """Names in words: all of a few, else how many more there are."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"


def _shown(claim: Claim, units: Sequence[UnitVerdict]) -> dict[str, float]:
    """Median of the values and outermost ends of the intervals, ratios as ratios."""
    measured = [unit.measured for unit in units if unit.measured is not None]
    if not measured:
        return dict.fromkeys(("measured", "low", "high"), float("nan"))
    values = {
        "measured": float(pd.Series([result.value for result in measured]).median()),
        "low": float(pd.Series([result.low for result in measured]).min()),
        "high": float(pd.Series([result.high for result in measured]).max()),
    }
    return {key: exp(v) for key, v in values.items()} if claim.is_ratio else values
