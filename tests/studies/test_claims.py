"""Verdicts on made-up tables whose right answer is known, and mistakes in a claims file."""

import math
from pathlib import Path

import pandas as pd
import pytest

from actshift.claims.file import CLAIM_COLUMNS, UNIT_COLUMNS, Claim, parse_claims
from actshift.claims.verdicts import (
    UnitVerdict,
    claims_table,
    decide,
    rule_text,
    units_table,
)
from actshift.errors import UserError
from actshift.stages.claims import read_claims


def claim(**changes: object) -> Claim:
    entry = {
        "id": "effect-is-large", "study": "s", "statement": "It is large.", "source": "paper, 1",
        "published": "0.9", "kind": "superiority", "table": "effects", "cell": {"k": 3},
        "value": "effect", "interval": ["low", "high"], "above": 0.1,
    }  # fmt: skip
    return parse_claims([entry | changes], origin="claims.yaml")[0]


def effects(*rows: tuple, columns: str = "pair k effect low high") -> dict:
    return {("s", "effects"): pd.DataFrame(rows, columns=columns.split())}


def verdicts(one: Claim, tables: dict, pairs: tuple[str, ...] = ("a",)) -> list[str]:
    return [unit.verdict for unit in decide([one], tables, pairs)]


def overall(one: Claim, tables: dict, pairs: tuple[str, ...], larger_run: str = "") -> dict:
    return claims_table([one], decide([one], tables, pairs), larger_run).iloc[0].to_dict()


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.2, 0.4, "holds", "fails"),
        (0.0, 0.4, "inconclusive", "inconclusive"),
        (-0.3, 0.05, "fails", "holds"),
        (math.nan, math.nan, "inconclusive", "inconclusive"),
    ],
)
def test_superiority_needs_the_whole_interval(
    low: float, high: float, above: str, below: str
) -> None:
    tables = effects(("a", 3, 0.1, low, high))
    assert verdicts(claim(), tables) == [above]
    assert verdicts(claim(above=None, below=0.1), tables) == [below]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.05, 0.08, "holds"), (-0.05, 0.2, "inconclusive"), (0.15, 0.3, "fails")],
)
def test_equivalence_is_not_a_missing_effect(low: float, high: float, verdict: str) -> None:
    one = claim(kind="equivalence", above=None, within=0.1)
    assert verdicts(one, effects(("a", 3, 0.0, low, high))) == [verdict]


def test_layers_are_pooled_by_the_median_of_their_ends() -> None:
    """Median low above the bound = more than half of the layers lie above it."""
    rows = [("a", 3, 0.5, 0.2, 0.8), ("a", 3, 0.5, 0.3, 0.8), ("a", 3, 0.5, 0.0, 0.8)]
    assert verdicts(claim(), effects(*rows)) == ["holds"]
    assert verdicts(claim(over="min"), effects(*rows)) == ["inconclusive"]


def test_ratios_are_compared_and_shown_as_ratios() -> None:
    one = claim(kind="ratio", above=1, per=["base"])
    tables = effects(("a", 3, 6.0, 4.0, 8.0, 2.0), columns="pair k effect low high base")
    row = overall(one, tables, ("a",))
    assert row["verdict"] == "holds"
    assert (row["measured"], row["low"], row["high"]) == pytest.approx((3, 2, 4))
    logged = claim(kind="ratio", above=1, logged=True)
    row = overall(logged, effects(("a", 3, math.log(2), math.log(0.9), math.log(3))), ("a",))
    assert row["verdict"] == "inconclusive"
    assert row["low"] == pytest.approx(0.9)


def test_the_smaller_of_two_divisors_counts() -> None:
    one = claim(per=["d", "n"])
    tables = effects(("a", 3, 6.0, 5.0, 7.0, 64, 10), columns="pair k effect low high d n")
    assert overall(one, tables, ("a",))["measured"] == pytest.approx(0.6)


def test_two_cells_are_compared_with_the_widest_interval() -> None:
    one = claim(versus={"k": 1}, above=0)
    tables = effects(("a", 3, 0.5, 0.4, 0.6), ("a", 1, 0.2, 0.1, 0.35))
    row = overall(one, tables, ("a",))
    assert (row["measured"], row["low"], row["high"]) == pytest.approx((0.3, 0.05, 0.5))
    assert row["verdict"] == "holds"


def test_the_largest_n_there_is() -> None:
    one = claim(cell={"k": "max"})
    assert verdicts(one, effects(("a", 1, 0, 0, 0), ("a", 9, 0.5, 0.4, 0.6))) == ["holds"]


def test_an_empty_cell_can_be_asked_for() -> None:
    one = claim(cell={"control": None})
    columns = "pair control effect low high"
    tables = effects(("a", None, 0.5, 0.4, 0.6), ("a", "random", 0, 0, 0), columns=columns)
    assert verdicts(one, tables) == ["holds"]
    assert overall(one, tables, ("a",))["primary_cell"] == "control none"


def test_an_inversion_needs_one_clear_row_and_fails_where_none_can_be() -> None:
    """Beyond the bound by its value, above 0 by its interval; some other row's interval is open."""
    one = claim(kind="inversion")
    clear = effects(("a", 3, -0.2, -0.3, -0.1), ("a", 3, 0.3, 0.02, 0.4))
    none = effects(("a", 3, -0.2, -0.3, -0.1), ("a", 3, 0.0, -0.05, 0.05))
    small = effects(("a", 3, 0.05, 0.01, 0.09), ("a", 3, 0.2, -0.4, 0.6))
    assert verdicts(one, clear) == ["holds"]
    assert verdicts(one, none) == ["fails"]
    assert verdicts(one, small) == ["inconclusive"]
    row = overall(one, clear, ("a",))
    assert (row["measured"], row["low"], row["high"]) == (0.3, 0.02, 0.4)


def test_unmet_requirements_are_not_measured_never_fails() -> None:
    rule = {"column": "width", "at_least": 64, "why": "too narrow"}
    tables = effects(("a", 3, -0.5, -0.6, -0.4, 32), columns="pair k effect low high width")
    unit = decide([claim(requires=[rule])], tables, ["a"])[0]
    assert unit.verdict == "not measured"
    assert unit.reason == "too narrow (median width at least 64, found 32)"


def test_both_compared_cells_must_meet_the_requirement() -> None:
    rule = {"column": "effect", "at_least": 3, "why": "rank floor"}
    one = claim(kind="ratio", above=1, versus={"k": 1}, requires=[rule])
    unit = decide([one], effects(("a", 3, 9, 8, 10), ("a", 1, 2, 2, 2)), ["a"])[0]
    assert unit.verdict == "not measured"
    assert "in k 1" in unit.reason


def test_by_construction_comes_before_the_interval() -> None:
    rule = {"column": "effect", "minus": "predicted", "at_most": 0.1, "why": "the means predict it"}
    columns = "pair k effect low high predicted"
    one = claim(by_construction=rule)
    near = decide([one], effects(("a", 3, 0.5, 0.4, 0.6, 0.45), columns=columns), ["a"])[0]
    far = decide([one], effects(("a", 3, 0.5, 0.4, 0.6, 0.9), columns=columns), ["a"])[0]
    assert (near.verdict, near.reason) == ("by construction", "the means predict it")
    assert far.verdict == "holds"


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({}, "table effects.csv has not been made"),
        (effects(("a", 3, 1.0), columns="pair k effect"), "table effects.csv has no column 'low'"),
        (effects(("a", 1, 1.0, 1.0, 1.0)), "table effects.csv has no row with k 3"),
        (effects(("b", 3, 1.0, 1.0, 1.0)), "table effects.csv has no row with k 3"),
        (effects(("a", 3, math.nan, 0.0, 0.0)), "column 'effect' has no number in the cell"),
    ],
)
def test_what_is_missing_is_said(tables: dict, reason: str) -> None:
    unit = decide([claim()], tables, ["a"])[0]
    assert (unit.verdict, unit.reason) == ("not measured", reason)


def test_a_joined_table_gives_columns_and_may_be_missing() -> None:
    one = claim(join={"table": "ranges", "on": ["pair"]}, interval=["from", "to"])
    tables = effects(("a", 3, 0.5), columns="pair k effect")
    assert decide([one], tables, ["a"])[0].reason == "table ranges.csv has not been made"
    ranges = pd.DataFrame([("a", 0.4, 0.6)], columns=["pair", "from", "to"])
    assert verdicts(one, {**tables, ("s", "ranges"): ranges}) == ["holds"]


def test_pairs_are_counted_and_never_pooled() -> None:
    rows = [("a", 3, 0.5, 0.4, 0.6), ("b", 3, 0.3, 0.2, 0.4), ("c", 3, 0.0, -0.1, 0.05)]
    tables = effects(*rows)
    row = overall(claim(), tables, ("a", "b", "c", "gone"))
    assert (row["verdict"], row["holds_in"]) == ("inconclusive", "2 of 4")
    assert row["reason"].startswith("holds: 2, fails: 1; gone: table effects.csv has no row")
    assert (row["measured"], row["low"], row["high"]) == pytest.approx((0.3, -0.1, 0.6))
    agreed = overall(claim(), tables, ("a", "b"))
    assert (agreed["verdict"], agreed["holds_in"], agreed["reason"]) == ("holds", "2 of 2", "")


def test_a_reason_of_many_units_names_a_few() -> None:
    rows = [(f"p{number}", 3, 0.0, -0.1, 0.3) for number in range(9)]
    sure = ("sure", 3, 0.5, 0.4, 0.6)
    names = [row[0] for row in rows]
    named = overall(claim(), effects(*rows, sure), (*names, "sure"))
    assert "; p0, p1, p2, p3, p4, p5 and 3 more: the interval" in named["reason"]
    few = overall(claim(), effects(*rows[:6], sure), (*names[:6], "sure"))
    assert "; p0, p1, p2, p3, p4, p5: the interval" in few["reason"]


def test_units_may_be_seeds() -> None:
    tables = effects((0, 3, 0.5, 0.4, 0.6), (1, 3, 0.5, 0.4, 0.6), columns="seed k effect low high")
    row = overall(claim(unit="seed"), tables, ("a",))
    assert (row["verdict"], row["holds_in"]) == ("holds", "2 of 2")
    missing = decide([claim(unit="seed")], {}, ["a"])
    assert units_table(missing).empty
    assert claims_table([claim(unit="seed")], missing)["holds_in"].tolist() == [""]


def test_seeds_may_decide_together_by_their_spread() -> None:
    one = claim(unit="seed", across=True, interval=None)
    columns = "seed k effect"
    far = effects((0, 3, 0.5), (1, 3, 0.6), (2, 3, 0.7), columns=columns)
    wide = effects((0, 3, 0.05), (1, 3, 0.6), (2, 3, 0.9), columns=columns)
    row = overall(one, far, ())
    # Mean .6, s .1, t(.975, 2) = 4.3027.
    assert (row["low"], row["high"]) == pytest.approx((0.6 - 0.24841, 0.6 + 0.24841), abs=1e-4)
    assert (row["verdict"], row["holds_in"]) == ("holds", "3 of 3")
    assert row["reason"] == "mean over 3 seeds, Student interval"
    row = overall(one, wide, ())
    assert (row["verdict"], row["holds_in"]) == ("inconclusive", "2 of 3")
    few = overall(one, effects((0, 3, 0.5), (1, 3, 0.6), columns=columns), ())
    assert few["verdict"] == "not measured"
    assert "at least 3 are needed" in few["reason"]


def with_p(p: float, **changes: object) -> tuple[Claim, dict]:
    name = str(changes.get("table", "effects"))
    columns = "pair k effect low high p".split()
    table = pd.DataFrame([("a", 3, 0.5, 0.4, 0.6, p)], columns=columns)
    return claim(p="p", **changes), {("s", name): table}


def test_holm_runs_over_the_claims_of_a_study() -> None:
    """p = .03 holds alone; beside a second claim at .04 neither survives."""
    one, tables = with_p(0.03)
    assert verdicts(one, tables) == ["holds"]
    other, more = with_p(0.04, id="other", table="others")
    both = decide([one, other], tables | more, ["a"])
    assert [unit.verdict for unit in both] == ["inconclusive", "inconclusive"]
    assert [unit.p_holm for unit in both] == pytest.approx([0.06, 0.06])
    assert both[0].reason == "p = 0.06 after Holm"
    elsewhere = {("t", "others"): more["s", "others"]}
    apart, _ = with_p(0.04, id="other", table="others", study="t")
    assert [u.verdict for u in decide([one, apart], tables | elsewhere, ["a"])] == ["holds"] * 2


def test_a_missing_p_value_does_not_pass() -> None:
    one, tables = with_p(math.nan)
    unit = decide([one], tables, ["a"])[0]
    assert (unit.verdict, unit.reason) == ("inconclusive", "its p value is missing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kindd": "x"}, "kindd: unknown key"),
        ({"kind": "vibe"}, "kind: input should be"),
        ({"above": None}, "kind 'superiority' needs exactly one of above, below"),
        ({"within": 0.1}, "kind 'superiority' needs exactly one of above, below"),
        ({"kind": "inversion", "above": None, "below": 0}, "kind 'inversion' needs exactly one"),
        ({"across": True}, "across: units carry a value alone"),
        ({"kind": "ratio", "above": 0}, "above: 0.0 is no factor"),
        ({"requires": [{"column": "d", "why": "x"}]}, "requires.0: 'd' needs one of"),
        ({"statement": None}, "statement: input should be a valid string"),
    ],
)
def test_mistakes_name_the_claim_and_the_key(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        claim(**changes)
    line = str(caught.value)
    assert line.startswith(f"claims.yaml: claim 'effect-is-large': {message}")
    assert "\n" not in line


def test_mistakes_of_the_file(tmp_path: Path) -> None:
    entry = claim().model_dump(exclude_none=True)
    with pytest.raises(UserError, match=r"claim 'effect-is-large': id: used twice"):
        parse_claims([entry, entry], origin="f")
    with pytest.raises(UserError, match="expected a list"):
        parse_claims({}, origin="f")
    with pytest.raises(UserError, match="claim number 2: expected keys, found 7"):
        parse_claims([entry, 7], origin="f")
    path = tmp_path / "claims.yaml"
    with pytest.raises(UserError, match="no such file"):
        read_claims([path])
    path.write_text("- {id: [")
    with pytest.raises(UserError, match="no YAML"):
        read_claims([path])


def test_the_tables_have_their_columns() -> None:
    units = decide([claim()], effects(("a", 3, 0.5, 0.4, 0.6)), ["a"])
    assert list(units_table(units)) == list(UNIT_COLUMNS)
    assert list(claims_table([claim()], units)) == list(CLAIM_COLUMNS)
    assert isinstance(units[0], UnitVerdict)
    assert rule_text(claim(p="p")) == "median effect above 0.1, p <= 0.05 after Holm"


SMALL = {"column": "draws", "at_least": 999, "why": "too few draws", "larger_run": True}


@pytest.mark.parametrize(
    ("changes", "rows", "too_small"),
    [
        ({"cell": {"k": 7}}, [("a", 3, 0.5, 0.2, 0.8, 99)], True),
        ({"table": "others"}, [("a", 3, 0.5, 0.2, 0.8, 99)], True),
        ({"requires": [SMALL]}, [("a", 3, 0.5, 0.2, 0.8, 99)], True),
        ({"requires": [SMALL]}, [("a", 3, 0.5, 0.2, 0.8, 99), ("b", 3, 0.5, 0.2, 0.8, 999)], False),
        ({"requires": [SMALL | {"larger_run": False}]}, [("a", 3, 0.5, 0.2, 0.8, 99)], False),
        ({"across": True, "interval": None}, [("a", 3, 0.5, 0.2, 0.8, 99)], True),
        ({}, [("a", 3, 0.5, 0.2, 0.8, 99)], False),
        ({}, [("a", 3, 0.1, 0.0, 0.8, 99)], False),
    ],
)
def test_what_no_number_of_this_run_could_decide_needs_the_larger_run(
    changes: dict, rows: list[tuple], too_small: bool
) -> None:
    tables = effects(*rows, columns="pair k effect low high draws")
    names = tuple(row[0] for row in rows)
    one = claim(**changes)
    plain = overall(one, tables, names)["reason"]
    wanted = f"{plain}; needs the larger run: make zoo" if too_small else plain
    assert overall(one, tables, names, "make zoo")["reason"] == wanted
