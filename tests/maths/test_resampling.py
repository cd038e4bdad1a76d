from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.maths.resampling import (
    bootstrap_counts,
    cluster_bootstrap_counts,
    cluster_orders,
    half_samples,
    nested_orders,
    prefix_membership,
    stability_range,
)

clusters = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=25)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bootstrap_draws_n_and_misses_a_third() -> None:
    counts = bootstrap_counts(200, draws=300, rng=rng())
    assert (counts.sum(axis=1) == 200).all()
    assert (counts > 0).mean() == pytest.approx(1 - np.exp(-1), abs=0.01)


@given(clusters)
@settings(max_examples=40, deadline=None)
def test_clusters_are_drawn_whole(names: list[str]) -> None:
    labels = np.array(names)
    counts = cluster_bootstrap_counts(names, draws=5, rng=rng())
    halves = half_samples(names, draws=5, rng=rng())
    for name in set(names):
        for table in (counts, halves):
            own = table[:, labels == name]
            assert (own == own[:, :1]).all()
    kept = [len(set(labels[half])) for half in halves]
    assert kept == [len(set(names)) // 2] * 5


@given(clusters)
@settings(max_examples=40, deadline=None)
def test_cluster_orders_keep_clusters_together(names: list[str]) -> None:
    for order in cluster_orders(names, draws=4, rng=rng()):
        assert sorted(order) == list(range(len(names)))
        ordered = [names[i] for i in order]
        changes = sum(a != b for a, b in pairwise(ordered))
        assert changes == len(set(names)) - 1


def test_nested_subsets_are_nested() -> None:
    orders = nested_orders(30, draws=8, rng=rng())
    small, large = (prefix_membership(orders, m) for m in (10, 20))
    assert (small.sum(axis=1) == 10).all()
    assert (large | ~small).all()


def test_every_prompt_is_equally_often_in_a_subset() -> None:
    members = prefix_membership(nested_orders(10, draws=4000, rng=rng()), 5)
    np.testing.assert_allclose(members.mean(axis=0), 0.5, atol=0.04)


def test_one_seed_one_result() -> None:
    for draw in (bootstrap_counts, nested_orders):
        np.testing.assert_array_equal(draw(9, draws=3, rng=rng(5)), draw(9, draws=3, rng=rng(5)))
        assert not np.array_equal(draw(9, draws=3, rng=rng(5)), draw(9, draws=3, rng=rng(6)))


def test_stability_range_ends_on_observed_values() -> None:
    values = np.array([3.0] * 3 + [4.0] * 94 + [7.0] * 3)
    assert stability_range(values) == (3.0, 7.0)
    assert stability_range(values, level=0.9) == (4.0, 4.0)
    assert np.isnan(stability_range(np.array([np.nan]))).all()
