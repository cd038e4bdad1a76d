"""Sign-flip test, McNemar, Holm: against slow references, textbook tables and simulated nulls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.sign_flips import sign_flip_p
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from actshift.maths.intervals import within_margin
from actshift.maths.paired import compare_paired, holm, mcnemar_exact, sign_flip_test

prompts = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abcdefgh")),
    min_size=1,
    max_size=30,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noun_rates(
    seed: int, *, clusters: int, size: int, shift: float = 0.0, spread: float = 0.25
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """0/1 outcomes of two arms whose clusters have effects of their own, independent in both."""
    draw = rng(seed)
    rates = np.clip(0.5 + spread * draw.standard_normal((2, clusters, 1)), 0.02, 0.98)
    rates[1] = np.clip(rates[1] + shift, 0, 1)
    arms = (draw.random((2, clusters, size)) < rates).astype(float).reshape(2, -1)
    return arms[0], arms[1], [f"c{i // size}" for i in range(clusters * size)]


@given(prompts)
@settings(max_examples=60, deadline=None)
def test_the_exact_test_equals_trying_every_pattern(rows: list[tuple[int, int, str]]) -> None:
    a, b = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    names = [row[2] for row in rows]
    found = sign_flip_test(a, b, names, draws=1, rng=rng())
    two, greater, less = sign_flip_p(a.tolist(), b.tolist(), names)
    assert found.exact
    assert found.p_two_sided == pytest.approx(two)
    assert (found.p_greater, found.p_less) == (pytest.approx(greater), pytest.approx(less))


def test_single_prompts_give_mcnemar() -> None:
    """With one prompt a cluster, flipping signs is the exact McNemar test."""
    a = np.r_[np.ones(9), np.zeros(2), np.ones(5), np.zeros(6)]
    b = np.r_[np.zeros(9), np.ones(2), np.ones(5), np.zeros(6)]
    found = sign_flip_test(a, b, [str(i) for i in range(22)], draws=1, rng=rng())
    assert found.clusters == 11
    # 2 * (1 + 11 + 55) / 2^11.
    assert found.p_two_sided == pytest.approx(134 / 2048)
    assert mcnemar_exact(a, b) == pytest.approx(134 / 2048)


def test_mcnemar_on_a_textbook_table() -> None:
    """Agresti's approval ratings (1990, table 10.1): 86 against 150 of 236 switched."""
    a = np.r_[np.zeros(86), np.ones(150), np.ones(794), np.zeros(570)]
    b = np.r_[np.ones(86), np.zeros(150), np.ones(794), np.zeros(570)]
    p = mcnemar_exact(a, b)
    # The normal statistic is z^2 = 64^2 / 236 = 17.36, p = 3.1e-5; the exact p lies near it.
    assert p == pytest.approx(3.7e-5, rel=0.05)
    assert np.isnan(mcnemar_exact(np.array([0.5, 1.0]), np.array([0.0, 1.0])))
    assert mcnemar_exact(np.ones(3), np.ones(3)) == 1


@pytest.mark.parametrize("table", [(5, 0), (0, 7), (12, 3), (86, 150), (1, 1), (40, 41), (0, 0)])
def test_mcnemar_equals_statsmodels_on_known_tables(table: tuple[int, int]) -> None:
    up, down = table
    a = np.r_[np.zeros(up), np.ones(down), np.ones(9), np.zeros(4)]
    b = np.r_[np.ones(up), np.zeros(down), np.ones(9), np.zeros(4)]
    expected = mcnemar([[4, up], [down, 9]], exact=True).pvalue if up + down else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)


def test_random_patterns_agree_with_all_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, names = noun_rates(3, clusters=14, size=5)
    exact = sign_flip_test(a, b, names, draws=1, rng=rng())
    monkeypatch.setattr("actshift.maths.paired.EXACT_CLUSTERS", 0)
    found = sign_flip_test(a, b, names, draws=20_500, rng=rng(1))
    assert exact.exact
    assert not found.exact
    for side in ("p_two_sided", "p_greater", "p_less"):
        assert getattr(found, side) == pytest.approx(getattr(exact, side), abs=0.012)


def test_random_patterns_never_give_zero() -> None:
    ones = np.ones(40)
    found = sign_flip_test(0 * ones, ones, [str(i) for i in range(40)], draws=99, rng=rng())
    assert found.p_two_sided == found.p_greater == 1 / 100
    assert found.p_less == 1


@given(prompts)
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_swaps_the_sides(rows: list[tuple[int, int, str]]) -> None:
    a, b = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    names = [row[2] for row in rows]
    one = sign_flip_test(a, b, names, draws=1, rng=rng())
    other = sign_flip_test(b, a, names, draws=1, rng=rng())
    assert (one.p_greater, one.p_less) == (other.p_less, other.p_greater)
    assert one.difference == -other.difference


def test_nothing_changed_is_no_evidence() -> None:
    found = sign_flip_test(np.ones(4), np.ones(4), list("aabb"), draws=9, rng=rng())
    assert (found.p_two_sided, found.p_greater, found.clusters) == (1, 1, 0)


def test_clustered_nulls_fool_mcnemar_and_not_the_sign_flip() -> None:
    """12 clusters of 10 prompts: nominal 5 %, 300 simulated nulls."""
    flips, counted = [], []
    for seed in range(300):
        a, b, names = noun_rates(seed, clusters=12, size=10)
        flips.append(sign_flip_test(a, b, names, draws=1, rng=rng()).p_two_sided <= 0.05)
        counted.append(mcnemar_exact(a, b) <= 0.05)
    assert np.mean(flips) <= 0.08
    assert np.mean(counted) >= 0.12


def test_a_real_difference_is_found() -> None:
    a, b, names = noun_rates(5, clusters=12, size=10, shift=0.35, spread=0.1)
    found = compare_paired(a, b, names, draws=500, rng=rng())
    assert found.sign_flip.p_greater < 0.01
    assert 0 < found.low < found.difference < found.high
    assert (found.n, found.clusters) == (120, 12)
    assert found.difference == pytest.approx(found.rate_b - found.rate_a)
    assert found.design_effect > 0


def test_no_change_on_few_clusters_is_no_proof_of_none() -> None:
    """24 nouns that kept refusing do not bound the next one's change at 10 points; 40 do."""
    for count, within in ((24, False), (40, True)):
        ones, names = np.ones(4 * count), [str(i // 4) for i in range(4 * count)]
        found = compare_paired(ones, ones, names, draws=200, rng=rng())
        assert (found.difference, found.sign_flip.p_two_sided) == (0.0, 1.0)
        assert within_margin(found.low, found.high, 0.1) is within


def test_damaged_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test(np.array([np.nan]), np.ones(1), ["a"], draws=9, rng=rng())
    with pytest.raises(ValueError, match="finite"):
        mcnemar_exact(np.ones(0), np.ones(0))


def test_holm_on_hand_computed_values() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04, running maximum .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested() -> None:
    found = holm([0.01, float("nan"), 0.02])
    assert found[0] == pytest.approx(0.02)
    assert found[2] == pytest.approx(0.02)
    assert np.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_holm_equals_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float]) -> None:
    level = 0.05
    order = sorted(range(len(p)), key=lambda i: p[i])
    rejected = set()
    for step, i in enumerate(order):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(holm(p)) if value <= level} == rejected
