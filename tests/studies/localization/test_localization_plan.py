"""What localization plans before a model runs: folds, partners, held-out bases, lanes, the gate."""

from collections.abc import Sequence

import numpy as np
import pytest

from actshift.patching import StateSums, Take
from actshift.studies.localization.bases import (
    FITTED,
    RANDOM,
    FoldBasis,
    fit_bases,
    moments,
    random_bases,
)
from actshift.studies.localization.gate import margin_gate
from actshift.studies.localization.lanes import (
    PARTNERED,
    Direction,
    Planned,
    matched_lanes,
    natural_lanes,
    random_directions,
    within,
)
from actshift.studies.localization.pairs import cluster_folds, partners
from actshift.studies.localization.study import Localization

LAYERS, WIDTH, RANKS = 2, 12, (1, 3, 8)
CONDITIONS = ["harmful"] * 12 + ["harmless"] * 8
CLUSTERS = [f"a{i // 2}" for i in range(12)] + [f"b{i // 2}" for i in range(8)]


def sums_of(states: np.ndarray) -> StateSums:
    """Sums of `[token, layer, d_model]`, by their definition."""
    second = np.einsum("tld,tle->lde", states, states)
    return StateSums(len(states), states.sum(0), second)


def draws(seed: int, folds: int = 3, tokens: int = 30) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 0.2, WIDTH)
    return {
        name: [rng.standard_normal((tokens, LAYERS, WIDTH)) * scale for _ in range(folds)]
        for name in FITTED
    }


def fit(
    states: dict[str, list[np.ndarray]], fold: int, ranks: Sequence[int] = RANKS
) -> dict[str, FoldBasis]:
    sums = {name: [sums_of(one) for one in parts] for name, parts in states.items()}
    found = {name: fit_bases(name, parts, ranks=ranks)[fold] for name, parts in sums.items()}
    return {**found, RANDOM: random_bases(sums["shift"], ranks=ranks, seed=0)[fold]}


@pytest.mark.parametrize("folds", [2, 4, 50])
def test_folds_hold_whole_clusters_and_are_even_in_every_condition(folds: int) -> None:
    found = cluster_folds(CONDITIONS, CLUSTERS, folds=folds, seed=1)
    for cluster in set(CLUSTERS):
        assert len({f for f, one in zip(found, CLUSTERS, strict=True) if one == cluster}) == 1
    for condition in set(CONDITIONS):
        clusters = {
            (cluster, int(fold))
            for one, cluster, fold in zip(CONDITIONS, CLUSTERS, found, strict=True)
            if one == condition
        }
        counts = np.bincount([fold for _, fold in clusters], minlength=folds)
        assert counts.max() - counts.min() <= 1


def test_folds_depend_on_the_seed_and_not_on_the_order_of_pairs() -> None:
    found = cluster_folds(CONDITIONS, CLUSTERS, folds=4, seed=0)
    turned = cluster_folds(CONDITIONS[::-1], CLUSTERS[::-1], folds=4, seed=0)
    assert (turned[::-1] == found).all()
    others = [cluster_folds(CONDITIONS, CLUSTERS, folds=4, seed=s) for s in range(1, 6)]
    assert any((one != found).any() for one in others)


@pytest.mark.parametrize("other", [False, True])
def test_partners_are_of_the_asked_condition_and_never_of_the_own_cluster(other: bool) -> None:
    found = partners(CONDITIONS, CLUSTERS, other=other, seed=0)
    assert found is not None
    for place, partner in enumerate(found):
        assert (CONDITIONS[place] != CONDITIONS[partner]) == other
        assert CLUSTERS[place] != CLUSTERS[partner]


def test_a_pair_without_a_partner_leaves_the_experiment_out() -> None:
    assert partners(["a", "a"], ["x", "y"], other=True, seed=0) is None
    assert partners(["a", "b"], ["x", "y"], other=False, seed=0) is None


def test_a_basis_never_sees_the_fold_it_is_scored_on() -> None:
    states, other = draws(0), draws(1)
    changed = {name: [other[name][0], *parts[1:]] for name, parts in states.items()}
    before, after = fit(states, 0), fit(changed, 0)
    for name in (*FITTED, RANDOM):
        assert (before[name].columns == after[name].columns).all()
        shares = [[row["share"] for row in one[name].rows] for one in (before, after)]
        assert shares[0] != shares[1]
    assert (fit(states, 1)["shift"].columns != fit(changed, 1)["shift"].columns).any()


def test_bases_and_shares_are_those_of_the_singular_value_decomposition() -> None:
    states = draws(2)
    found = fit(states, 1)
    for name in FITTED:
        stacked = np.concatenate([states[name][0], states[name][2]])
        for layer in range(LAYERS):
            _, values, rows = np.linalg.svd(stacked[:, layer], full_matrices=False)
            basis = found[name].columns[layer]
            np.testing.assert_allclose(np.abs((basis.T @ rows[:8].T).diagonal()), 1, atol=1e-9)
            energy = (values**2).cumsum() / (values**2).sum()
            left_out = states[name][1][:, layer]
            for k in RANKS:
                row = next(
                    one
                    for one in found[name].rows
                    if (one["layer"], one["basis"], one["k"]) == (layer, name, k)
                )
                kept = left_out @ rows[:k].T
                assert row["share_fit"] == pytest.approx(energy[k - 1])
                assert row["share"] == pytest.approx((kept**2).sum() / (left_out**2).sum())
                assert (row["n_fit"], row["n"], row["fold"], row["d"]) == (60, 30, 1, WIDTH)


def test_random_bases_and_directions_are_orthonormal_and_the_same_in_every_fold() -> None:
    states = draws(3)
    first, second = (fit(states, fold)[RANDOM].columns for fold in (0, 2))
    assert (first == second).all()
    for layer in range(LAYERS):
        np.testing.assert_allclose(first[layer].T @ first[layer], np.eye(8), atol=1e-12)
    units = random_directions(4, LAYERS, WIDTH, seed=0)
    np.testing.assert_allclose(np.linalg.norm(units, axis=-1), 1)
    assert (random_directions(2, LAYERS, WIDTH, seed=0) == units[:2]).all()
    assert len(np.unique(units.reshape(-1, WIDTH).round(9), axis=0)) == 4 * LAYERS


def test_moments_are_those_of_all_tokens() -> None:
    states = draws(6)["states"]
    found = moments([sums_of(one) for one in states])
    np.testing.assert_allclose(found.mean, np.concatenate(states).mean(0), atol=1e-12)
    np.testing.assert_allclose(found.std, np.concatenate(states).std(0))


def planned(direction: Direction = "forward", **changes: object) -> dict[str, list[Planned]]:
    section = Localization().model_copy(update={"ranks": RANKS, **changes})
    settings = within(section, WIDTH)
    bases = {name: one.columns for name, one in fit(draws(4), 0, settings.ranks).items()}
    donor = moments([sums_of(one) for one in draws(5)["states"]])
    return natural_lanes(settings, bases, donor, direction=direction, partnered=PARTNERED, seed=0)


def test_low_rank_and_random_directions_patch_the_base_alone() -> None:
    assert planned("forward").keys() - planned("reverse").keys() == {"low_rank", "random"}
    assert planned("reverse").keys() <= planned("forward").keys()


def test_lanes_say_what_they_are() -> None:
    found = planned()
    lanes = [one for group in (*found.values(), *matched_lanes(LAYERS).values()) for one in group]
    for one in lanes:
        assert (one.lane.name, one.lane.layer, one.lane.positions) == (
            one.facts.name,
            one.facts.layer,
            one.facts.positions,
        )
        if isinstance(one.lane.edit, Take):
            basis = one.lane.edit.basis
            assert one.facts.rank == (None if basis is None else basis.shape[1])
            assert one.facts.alpha == one.lane.edit.alpha
            assert one.facts.keep_rest == one.lane.edit.keep_rest
    for name, group in found.items():
        assert {one.facts.experiment for one in group} == {name}
        names = [one.lane.name for one in group]
        assert len(set(names)) == len(names)


def test_draws_ranks_and_weights_follow_the_settings() -> None:
    found = planned(random_draws=5, noise_draws=1, alphas=(0.5,))
    assert {one.facts.draw for one in found["random"]} == set(range(5))
    assert {one.facts.draw for one in found["noise"]} == {0}
    assert {one.facts.alpha for one in found["interpolation"]} == {0.5}
    assert {one.facts.rank for one in found["low_rank"]} == set(RANKS)


def test_ranks_that_the_width_does_not_hold_are_left_out() -> None:
    assert within(Localization(), 16).ranks == (1, 2, 4, 8)
    assert within(Localization(ranks=(64,)), 16).ranks == (1,)


def test_the_gate_looks_at_harmful_pairs_and_at_whole_clusters() -> None:
    rng = np.random.default_rng(0)
    gap = np.where([one == "harmful" for one in CONDITIONS], 2.0, -50.0) + rng.normal(size=20) / 4
    found = margin_gate(gap, CONDITIONS, CLUSTERS, seed=0)
    assert found.passed
    assert (found.condition, found.n, found.clusters) == ("harmful", 12, 6)
    assert found.mean == pytest.approx(gap[:12].mean())
    assert found.low < found.mean < found.high
    assert not margin_gate(-gap, CONDITIONS, CLUSTERS, seed=0).passed
    alone = margin_gate(gap, ["helpful"] * 20, CLUSTERS, seed=0)
    assert (alone.condition, alone.n) == ("helpful", 20)


def test_one_cluster_passes_no_gate() -> None:
    assert not margin_gate(np.ones(3), ["harmful"] * 3, ["a"] * 3, seed=0).passed
