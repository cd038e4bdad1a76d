"""Many rows at once give what the functions for one row give."""

import numpy as np
import pytest

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.maths.intervals import clustered_wilson, design_effect, discordant_interval
from actshift.maths.paired import compare_paired

RNG = np.random.default_rng(5)
CLUSTERS = [f"c{i}" for i in RNG.integers(0, 9, 40)]
#: Rates of every size, with rows of all 0, all 1 and shares (the mean over a null's draws).
RATES = np.vstack(
    [RNG.random((6, 40)) < 0.3, np.zeros((1, 40)), np.ones((1, 40)), RNG.random((2, 40))]
).astype(float)


def test_wilson_and_design_effect_are_those_of_each_row() -> None:
    sample = ClusterRows.of(CLUSTERS, seed=0)
    effects, ends = sample.design_effects(RATES), sample.wilson(RATES)
    for row, effect, end in zip(RATES, effects, ends, strict=True):
        assert effect == pytest.approx(design_effect(row, CLUSTERS))
        assert end == pytest.approx(clustered_wilson(row, CLUSTERS), abs=1e-9)


def test_a_resample_weighs_whole_clusters() -> None:
    sample = ClusterRows.of(CLUSTERS, seed=3, draws=7)
    names = sorted(set(CLUSTERS))
    for draw, counts in enumerate(sample.counts):
        rows = [i for i, name in enumerate(CLUSTERS) for _ in range(int(counts[names.index(name)]))]
        assert sample.draws(RATES)[:, draw] == pytest.approx(RATES[:, rows].mean(axis=1))


def test_change_ends_are_those_of_a_paired_comparison() -> None:
    """The bootstrap part within noise, the part that stays open to rounding."""
    sample = ClusterRows.of(CLUSTERS, seed=0, draws=20000)
    before, after = RATES[:5], RATES[5:]
    for gap, ends, a, b in zip(
        after - before, sample.change_ends(after - before), before, after, strict=True
    ):
        rng = np.random.default_rng(1)
        found = compare_paired(a, b, CLUSTERS, draws=20000, rng=rng)
        assert ends == pytest.approx((found.low, found.high), abs=0.02)
        low, high = discordant_interval(gap, CLUSTERS)
        assert ends[0] <= low + 1e-9
        assert ends[1] >= high - 1e-9
    same = sample.change_ends(np.zeros((1, 40)))[0]
    assert same == pytest.approx(discordant_interval(np.zeros(40), CLUSTERS))


def test_one_cluster_or_an_unknown_number_has_no_bootstrap_interval() -> None:
    alone = ClusterRows.of(["a", "a"], seed=0)
    assert np.isnan(alone.ends(alone.draws(np.ones((1, 2))))).all()
    drawn = np.array([[1.0, np.nan], [1.0, 2.0]])
    found = ClusterRows.of(["a", "b"], seed=0).ends(drawn)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_no_negative_zero_is_written() -> None:
    row = columns("drop", np.array([-0.0]), np.array([[-0.0, 0.1]]))[0]
    assert str(row["drop"]) == str(row["drop_low"]) == "0.0"
