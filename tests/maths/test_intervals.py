"""Intervals on clustered prompts: against scipy, exact identities and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from actshift.maths.intervals import (
    bootstrap_ends,
    cluster_mean_interval,
    cluster_sums,
    cluster_t_interval,
    clustered_wilson,
    design_effect,
    discordant_interval,
    finite_ends,
    mean_t_interval,
    wilson_interval,
    within_margin,
)
from actshift.maths.resampling import cluster_mean_draws


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=80, deadline=None)
def test_wilson_equals_scipy_at_whole_n(n: int, data: st.DataObject, level: float) -> None:
    k = data.draw(st.integers(0, n))
    expected = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    found = wilson_interval(k / n, n, level=level)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("refused", "low", "high"),
    [
        (97, 0.915479219195973, 0.9897456617765851),
        (80, 0.7111690380734977, 0.8666340774409013),
        (4, 0.015663050551848016, 0.09837217232607373),
        (0, 0.0, 0.03699480747600191),
    ],
)
def test_wilson_gives_the_published_intervals_of_100_answers(
    refused: int, low: float, high: float
) -> None:
    """Refusal after ablation as released with arXiv 2605.24583 (there z is 1.96)."""
    assert wilson_interval(refused / 100, 100) == pytest.approx((low, high), abs=1e-5)


def test_wilson_lies_between_its_whole_neighbours() -> None:
    (_, wide), (_, mid), (_, narrow) = (wilson_interval(0.0, n) for n in (12, 12.5, 13))
    assert wide > mid > narrow
    # z^2 / (n + z^2) at rate 0.
    assert mid == pytest.approx(1.959964**2 / (12.5 + 1.959964**2), rel=1e-6)


@pytest.mark.parametrize(("rate", "n"), [(0.5, 0.0), (1.1, 3.0), (float("nan"), 3.0)])
def test_wilson_refuses_what_is_no_rate(rate: float, n: float) -> None:
    with pytest.raises(ValueError, match="no Wilson interval"):
        wilson_interval(rate, n)


def test_own_clusters_have_design_effect_one() -> None:
    values = (rng().random(40) < 0.3).astype(float)
    assert design_effect(values, [str(i) for i in range(40)]) == pytest.approx(1)


def test_copies_have_the_design_effect_of_their_number() -> None:
    """m copies of C independent values: m, but for (C m - 1) / (C m) and C / (C - 1)."""
    values = (rng(1).random(30) < 0.4).astype(float)
    found = design_effect(np.repeat(values, 5), [str(i // 5) for i in range(150)])
    assert found == pytest.approx(5 * (149 / 150) * (30 / 29))


def test_independent_prompts_have_design_effect_one_on_average() -> None:
    names = [str(i // 10) for i in range(120)]
    found = [design_effect((rng(s).random(120) < 0.5).astype(float), names) for s in range(300)]
    assert np.mean(found) == pytest.approx(1, abs=0.06)


def test_equal_outcomes_take_the_worst_case() -> None:
    assert design_effect(np.zeros(120), [str(i // 10) for i in range(120)]) == pytest.approx(10)
    assert design_effect(np.array([0.0, 1.0]), ["a", "a"]) == pytest.approx(2)
    # 0 of 120 on 12 nouns bounds a new noun as 0 of 12 would.
    low, high = clustered_wilson(np.zeros(120), [str(i // 10) for i in range(120)])
    assert low == 0
    assert high == pytest.approx(wilson_interval(0.0, 12)[1])
    assert high == pytest.approx(0.2425, abs=1e-3)


def test_a_small_design_effect_adds_no_prompts() -> None:
    values = np.tile([0.0, 1.0], 20)
    names = [str(i // 2) for i in range(40)]
    assert design_effect(values, names) == pytest.approx(0)
    assert clustered_wilson(values, names) == wilson_interval(0.5, 40)
    with pytest.raises(ValueError, match="no prompts"):
        clustered_wilson(np.zeros(0), [])


def clustered(seed: int, *, clusters: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Values with a cluster part as large as the rest, mean 0; sizes differ between clusters."""
    draw = rng(seed)
    sizes = draw.integers(1, 2 * size, clusters)
    codes = np.repeat(np.arange(clusters), sizes)
    values = draw.standard_normal(clusters)[codes] + draw.standard_normal(len(codes))
    return values, codes.astype(str).tolist()


def test_the_cluster_interval_covers_and_the_prompt_interval_does_not() -> None:
    inside, naive = [], []
    for seed in range(200):
        values, names = clustered(seed, clusters=12, size=8)
        low, high = cluster_mean_interval(values, names, draws=400, rng=rng(seed))
        inside.append(low <= 0 <= high)
        own = [str(i) for i in range(len(values))]
        low, high = cluster_mean_interval(values, own, draws=400, rng=rng(seed))
        naive.append(low <= 0 <= high)
    assert np.mean(inside) >= 0.9
    assert np.mean(naive) <= 0.75


def test_the_cluster_interval_holds_the_mean_and_follows_shifts() -> None:
    values, names = clustered(0, clusters=20, size=5)
    low, high = cluster_mean_interval(values, names, draws=500, rng=rng())
    moved = cluster_mean_interval(values + 3, names, draws=500, rng=rng())
    assert low < values.mean() < high
    assert moved == pytest.approx((low + 3, high + 3))
    wider = cluster_mean_interval(values, names, draws=500, rng=rng(), level=0.99)
    assert wider[0] < low < high < wider[1]


def test_the_robust_interval_of_single_prompts_is_students() -> None:
    values, names = clustered(4, clusters=15, size=1)
    own = [str(i) for i in range(len(values))]
    found = cluster_t_interval(values, own, level=0.9)
    assert found == pytest.approx(mean_t_interval(values, level=0.9))
    # Copies add prompts and no evidence.
    copies = cluster_t_interval(np.repeat(values, 3), np.repeat(own, 3).tolist(), level=0.9)
    assert copies == pytest.approx(found)
    assert len(names) == len(own)


def test_the_robust_interval_covers_as_far_out_as_asked() -> None:
    outside = []
    for seed in range(400):
        values, names = clustered(seed, clusters=16, size=6)
        low, high = cluster_t_interval(values, names, level=0.98)
        outside.append(not low <= 0 <= high)
    assert np.mean(outside) <= 0.04


def test_one_cluster_has_no_interval() -> None:
    assert np.isnan(cluster_t_interval(np.ones(4), list("aaaa"))).all()
    assert np.isnan(cluster_mean_interval(np.ones(4), list("aaaa"), draws=9, rng=rng())).all()


def test_equivalence_needs_the_whole_interval() -> None:
    assert within_margin(-0.05, 0.08, 0.1)
    assert not within_margin(-0.05, 0.1, 0.1)
    assert not within_margin(-0.2, 0.0, 0.1)
    assert not within_margin(float("nan"), float("nan"), 0.1)
    with pytest.raises(ValueError, match="not positive"):
        within_margin(0.0, 0.0, 0.0)


def test_sums_and_sizes_by_cluster() -> None:
    sums, sizes = cluster_sums(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])
    assert sums.tolist() == [2, 5]
    assert sizes.tolist() == [1, 2]
    with pytest.raises(ValueError, match="3 values for 1"):
        cluster_sums(np.ones(3), ["a"])


def test_the_t_interval_on_hand_computed_values() -> None:
    # Mean 2, s 1, t(.975, 2) = 4.302653.
    assert mean_t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        (2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6
    )
    assert np.isnan(mean_t_interval(np.array([1.0]))).all()


def test_many_rows_share_their_resamples_and_equal_single_ones() -> None:
    values = rng(3).random((4, 30))
    names = [f"c{i % 7}" for i in range(30)]
    draws = cluster_mean_draws(values, names, draws=300, rng=rng(1))
    ends = bootstrap_ends(draws, clusters=7)
    for row, (low, high) in zip(values, ends, strict=True):
        single = cluster_mean_interval(row, names, draws=300, rng=rng(1))
        assert single == pytest.approx((low, high))
    # A shift moves every draw alike only where the counts are shared.
    shifted = cluster_mean_draws(values + 1, names, draws=300, rng=rng(1))
    np.testing.assert_allclose(shifted - draws, 1.0)
    with pytest.raises(ValueError, match="30 values for 29 clusters"):
        cluster_mean_draws(values, names[1:], draws=3, rng=rng())


def test_the_difference_of_two_samples_covers() -> None:
    """Independent samples of 12 and 20 clusters, equal means: 95 % of the intervals hold 0."""
    covered = 0
    for seed in range(300):
        draw = rng(seed)
        a, b = (draw.standard_normal((1, n)).repeat(3, axis=1) for n in (12, 20))
        first, second = (
            cluster_mean_draws(x, [f"c{i // 3}" for i in range(x.shape[1])], draws=400, rng=draw)
            for x in (a, b)
        )
        low, high = bootstrap_ends(first - second, clusters=12)[0]
        covered += low <= 0 <= high
    assert covered / 300 > 0.91


def test_a_difference_of_nothing_is_as_open_as_its_clusters() -> None:
    """No change on 24 nouns says less than no change on 40: z^2 / (C + z^2)."""
    for count, bound in ((24, 0.138), (40, 0.0876)):
        names = [f"c{i // 3}" for i in range(3 * count)]
        low, high = discordant_interval(np.zeros(3 * count), names)
        assert (low, high) == pytest.approx((-bound, bound), abs=1e-4)
        low, high = discordant_interval(-np.ones(3 * count), names)
        # The shares that fell and that rose are as open as one another.
        assert (low, high) == pytest.approx((-1, -1 + bound * np.sqrt(2)), abs=1e-4)
    with pytest.raises(ValueError, match="no Wilson interval"):
        discordant_interval(np.full(3, 2.0), list("abc"))


def test_the_interval_of_a_difference_covers() -> None:
    """Nouns that all rise, all fall or stay, at rates .1 and .3: the truth is -.2."""
    covered = 0
    for seed in range(400):
        changed = rng(seed).choice([1.0, -1.0, 0.0], p=[0.1, 0.3, 0.6], size=30)
        low, high = discordant_interval(changed.repeat(2), [f"c{i // 2}" for i in range(60)])
        covered += low <= -0.2 <= high
    assert covered / 400 > 0.92


def test_ends_leave_few_missing_draws_out_and_give_up_on_many() -> None:
    draws = np.random.default_rng(0).normal(size=(3, 100))
    draws[1, :5] = np.nan
    draws[2, :20] = np.nan
    found = finite_ends(draws, clusters=9)
    np.testing.assert_allclose(found[0], bootstrap_ends(draws[:1], clusters=9)[0])
    np.testing.assert_allclose(found[1], bootstrap_ends(draws[1:2, 5:], clusters=9)[0])
    assert np.isnan(found[2]).all()
