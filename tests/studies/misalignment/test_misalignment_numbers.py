"""Choice, margins, separation, detection and topology, against slow references."""

import numpy as np
import pytest

from actshift.maths.cluster_rows import ClusterRows
from actshift.studies.misalignment.choose import half_of_best
from actshift.studies.misalignment.join import over_pairs, with_holm
from actshift.studies.misalignment.tables.adapters import auroc, cohen_d, midpoint_correct
from actshift.studies.misalignment.tables.lanes import Group
from actshift.studies.misalignment.tables.specificity import (
    Edit,
    Judged,
    Null,
    margin_over,
    percentile,
    verdict,
)
from actshift.studies.misalignment.tables.topology import (
    additive,
    asymmetry_of,
    models_of,
    topology_rows,
)

RNG = np.random.default_rng(11)
NAMES = ("gemma", "llama", "ministral", "qwen")


@pytest.mark.parametrize(
    ("gains", "coeff"),
    [
        ({0.25: 0.1, 0.5: 0.3, 1.0: 0.6, 1.5: 0.5}, 0.5),
        ({0.25: 0.6, 1.5: 0.1}, 0.25),
        ({0.25: -0.1, 0.5: 0.0, 1.0: -0.3}, 1.0),
        ({0.25: 0.0, 0.5: 0.0}, 0.5),
        ({0.25: float("nan"), 1.5: 0.2}, 1.5),
        ({}, None),
    ],
)
def test_the_smallest_coefficient_that_reaches_half(
    gains: dict[float, float], coeff: float | None
) -> None:
    assert half_of_best(gains) == coeff


@pytest.mark.parametrize("lanes", [1, 2, 20, 21, 999])
def test_percentile_is_that_of_numpy(lanes: int) -> None:
    values = RNG.normal(size=(lanes, 5))
    assert percentile(values) == pytest.approx(np.percentile(values, 95, axis=0))


def _null(name: str, values: np.ndarray, sample: ClusterRows) -> Null:
    return Null.of(name, values.mean(axis=1), sample.draws(values))


def test_a_margin_is_over_the_strongest_null_found_anew_on_each_resample() -> None:
    clusters = [f"c{i // 4}" for i in range(48)]
    sample = ClusterRows.of(clusters, seed=2, draws=50)
    edit = (RNG.random(48) < 0.8).astype(float)
    draws = {name: (RNG.random((99, 48)) < p).astype(float) for name, p in (("a", 0.2), ("b", 0.3))}
    found = margin_over(
        edit.mean(), sample.draws(edit[None])[0], [_null(*item, sample) for item in draws.items()]
    )
    assert found is not None
    tops = {name: np.percentile(own.mean(axis=1), 95) for name, own in draws.items()}
    assert found.strongest.name == max(tops, key=lambda name: tops[name])
    assert found.value == pytest.approx(edit.mean() - max(tops.values()))
    for draw in range(50):
        weights = sample.member @ sample.counts[draw]
        high = max(
            np.percentile(np.average(own, axis=1, weights=weights), 95) for own in draws.values()
        )
        assert found.drawn[draw] == pytest.approx(np.average(edit, weights=weights) - high)
    assert found.p == 1 / 100
    assert margin_over(0.5, np.zeros(3), []) is None


def test_draws_that_gain_as_much_count_against_the_edit() -> None:
    sample = ClusterRows.of(["a", "b", "c"], seed=0, draws=10)
    same = np.tile([1.0, 0.0, 1.0], (19, 1))
    found = margin_over(2 / 3, sample.draws(same[:1])[0], [_null("same", same, sample)])
    assert found is not None
    assert (found.value, found.p) == (pytest.approx(0), 1.0)


@pytest.mark.parametrize(
    ("value", "low", "high", "broken", "expected"),
    [
        (0.3, 0.1, 0.5, False, "specific"),
        (0.3, 0.1, 0.5, True, "broken"),
        (0.08, 0.05, 0.2, False, "inconclusive"),
        (0.2, -0.05, 0.4, False, "inconclusive"),
        (0.0, 0.0, 0.0, False, "not specific"),
        (-0.1, -0.3, 0.09, False, "not specific"),
        (0.05, 0.01, 0.09, False, "not specific"),
        (0.2, float("nan"), float("nan"), False, "inconclusive"),
    ],
)
def test_verdicts(value: float, low: float, high: float, broken: bool, expected: str) -> None:
    assert verdict(value, low, high, broken=broken, least=0.1) == expected


def test_equal_nulls_are_seldom_called_specific() -> None:
    """v is one more draw of the null: 60 such studies, prompts correlated within clusters."""
    clusters = [f"c{i // 3}" for i in range(60)]
    sample = ClusterRows.of(clusters, seed=0, draws=200)
    found = []
    for _ in range(60):
        lean = RNG.normal(size=(200, 20)).repeat(3, axis=1)
        values = (lean + RNG.normal(size=(200, 60)) > 0.5).astype(float)
        margin = margin_over(
            values[0].mean(), sample.draws(values[:1])[0], [_null("n", values[1:], sample)]
        )
        assert margin is not None
        low, high = sample.ends(margin.drawn[None])[0]
        found.append(verdict(margin.value, low, high, broken=False, least=0.1))
    assert found.count("specific") == 0
    assert found.count("not specific") > 30


def test_holm_runs_over_receivers_of_one_way_to_fit_a_map() -> None:
    def row(scope: str, fit_on: str | None, p: float) -> dict[str, object]:
        return {"scope": scope, "protocol": "last_token", "fit_on": fit_on, "p": p}

    rows = [
        *(row("across", "neutral", p) for p in (0.001, 0.03, 0.02)),
        row("across", "with_code", 0.01),
        row("within", None, 0.04),
        {"scope": "within", "protocol": "all_tokens", "fit_on": None},
    ]
    found = [one["p_holm"] for one in with_holm(rows)]
    assert found[:5] == pytest.approx([0.003, 0.04, 0.04, 0.01, 0.04])
    assert np.isnan(float(str(found[5])))


def test_midpoint_accuracy_is_that_of_the_nearer_mean() -> None:
    chat, adapter = RNG.normal(0, 1, 30), RNG.normal(0.8, 1, 30)
    for sign in (1, -1):
        a, b = sign * chat, sign * adapter
        right = midpoint_correct(a, b, chat_mean=a.mean(), adapter_mean=b.mean())
        near = [abs(x - b.mean()) < abs(x - a.mean()) for x in b]
        far = [abs(x - a.mean()) < abs(x - b.mean()) for x in a]
        assert right.mean() == pytest.approx((np.mean(near) + np.mean(far)) / 2)
    # An adapter that changes nothing: a half, not 0 or 1.
    assert midpoint_correct(chat, chat, chat_mean=0.0, adapter_mean=0.0).tolist() == [0.5] * 30


def test_cohen_d_by_hand_and_without_spread() -> None:
    # Both have variance 1 with n - 1, means 1 and 4.
    assert cohen_d(np.array([0.0, 1, 2]), np.array([3.0, 4, 5])) == pytest.approx(3.0)
    assert np.isnan(cohen_d(np.zeros(3), np.ones(3)))
    assert np.isnan(cohen_d(np.zeros(1), np.ones(1)))


def test_auroc_counts_pairs_and_a_resample_weighs_them() -> None:
    clusters = [f"c{i // 3}" for i in range(24)]
    sample = ClusterRows.of(clusters, seed=4, draws=300)
    a, b = np.round(RNG.normal(0.7, 1, 24), 1), np.round(RNG.normal(0, 1, 24), 1)

    def slow(rows: list[int]) -> float:
        wins = [(a[i] > b[j]) + (a[i] == b[j]) / 2 for i in rows for j in rows]
        return float(np.mean(wins))

    value, (low, high) = auroc(a, b, sample)
    assert value == pytest.approx(slow(list(range(24))))
    names = sorted(set(clusters))
    drawn = [
        slow([i for i, c in enumerate(clusters) for _ in range(int(counts[names.index(c)]))])
        for counts in sample.counts
    ]
    inner = sample.ends(np.array([drawn]))[0]
    assert low <= inner[0] + 1e-12
    assert high >= inner[1] - 1e-12
    assert low < value < high


def test_auroc_of_perfect_scores_keeps_a_width() -> None:
    sample = ClusterRows.of([f"c{i}" for i in range(10)], seed=0)
    value, (low, high) = auroc(np.arange(10) + 20.0, np.arange(10.0), sample)
    assert (value, high) == (1.0, 1.0)
    assert 0.5 < low < 0.9


def test_seeds_come_from_names_that_share_a_stem() -> None:
    found = models_of(["llama-0", "llama-1", "qwen", "gemma-2", "zoo-s3", "zoo-s4"])
    assert {name: (one.family, one.seed) for name, one in found.items()} == {
        **{"llama-0": ("llama", 0), "llama-1": ("llama", 1), "qwen": ("qwen", 0)},
        **{"gemma-2": ("gemma-2", 0), "zoo-s3": ("zoo", 3), "zoo-s4": ("zoo", 4)},
    }


def _shares(donor: np.ndarray, receiver: np.ndarray, noise: float, seeds: int = 3):
    rng = np.random.default_rng(8)
    return {
        (a, b, s): 0.5 + donor[i] + receiver[j] + noise * rng.normal()
        for s in range(seeds)
        for i, a in enumerate(NAMES)
        for j, b in enumerate(NAMES)
        if i != j
    }


def test_an_additive_matrix_is_taken_apart() -> None:
    donor, receiver = np.array([0.3, -0.1, 0.0, -0.2]), np.array([-0.1, 0.1, 0.2, -0.2])
    found = additive(_shares(donor, receiver, 0.0))
    assert [found["donor"][name] for name in NAMES] == pytest.approx(donor)
    assert [found["receiver"][name] for name in NAMES] == pytest.approx(receiver)


def test_asymmetry_is_found_where_it_is_and_not_where_rows_equal_columns() -> None:
    donor = np.array([0.3, -0.1, 0.0, -0.2])
    planted = asymmetry_of(_shares(donor, -donor, 0.05), seed=0)
    absent = asymmetry_of(_shares(donor, donor, 0.05), seed=0)
    assert planted is not None
    assert absent is not None
    assert planted.low > 0
    assert planted.p < 0.01
    assert absent.low < 0
    assert absent.p > 0.05
    gaps = [2 * (donor[i] - donor[j]) for i in range(4) for j in range(i)]
    assert planted.value == pytest.approx(np.sqrt(np.mean(np.square(gaps))), abs=0.05)
    assert asymmetry_of({("a", "b", 0): 0.1}, seed=0) is None


def test_one_seed_can_not_say_who_gives() -> None:
    """Six pairs, one gap each: no sign changes the size, so that every swap is as large."""
    alone = asymmetry_of(_shares(np.array([0.3, -0.1, 0, -0.2]), np.zeros(4), 0, seeds=1), seed=0)
    assert alone is not None
    assert alone.p == 1.0


def test_models_of_one_architecture_are_corrected_and_told_apart() -> None:
    """Nine tests of maps across architectures are not paid for by those within one."""
    rows = [
        {"donor": a, "receiver": b, "scope": "within" if a == b else "across",
         "protocol": "last_token", "fit_on": None if a == b else "neutral", "p": 0.01,
         "pairing": None if a == b else f"{a} -> {b}"}
        for a in ("x-0", "x-1", "y") for b in ("x-0", "x-1", "y")
    ]  # fmt: skip
    kin = {("x-0", "x-1"), ("x-1", "x-0")}
    done = over_pairs({"specificity": rows}, [], pairs=(), kin=kin, seed=0)["specificity"]
    found = {(row["donor"], row["receiver"]): (row["scope"], row["p_holm"]) for row in done}
    named = {row["pairing"] for row in done if row.get("pairing")}
    assert named == {"x-0 -> y", "y -> x-0", "x-1 -> y", "y -> x-1"}
    assert {key for key, (scope, _) in found.items() if scope == "same_architecture"} == kin
    by_scope = {scope: p for scope, p in found.values()}
    assert by_scope == pytest.approx({"within": 0.03, "across": 0.04, "same_architecture": 0.02})


def _judged(donor: str, receiver: str, removed: int) -> Judged:
    """Of 40 questions all answered with code, so many no longer are."""
    group = Group({"coeff": 1.0}, np.array([0]), 1, np.array([0]), False, 1.0, 1.0, 0.0)
    sample = ClusterRows.of([f"c{i}" for i in range(40)], seed=0, draws=20)
    code = (np.arange(40) >= removed).astype(float)
    ones, zeros = np.ones(40), np.zeros(40)
    edit = Edit(
        group, tuple(map(str, range(40))), sample, ones, code, zeros, 1 - code, 0.0, 0.0, 0.1
    )
    return Judged(donor, receiver, "last_token", "neutral", edit, None, "")


def test_three_seeds_say_who_gives_and_who_takes() -> None:
    """Gemma and qwen give, llama takes, as published; only models of one seed are compared."""
    given = {"gemma": 20, "qwen": 16, "llama": 4}
    pairs = [f"{name}-{seed}" for name in given for seed in range(3)]
    jitter = np.random.default_rng(3)
    found = [
        _judged(a, b, given[a.split("-")[0]] - given[b.split("-")[0]] // 2 + 8 + jitter.integers(3))
        for a in pairs
        for b in pairs
        if a != b
    ]
    rows = topology_rows(found, pairs=pairs, seed=0)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["seeds"] for row in rows} == {3}
    by_donor = {str(row["donor"])[:-2]: row["donor_effect"] for row in rows}
    assert sorted(by_donor, key=lambda name: float(str(by_donor[name]))) == [
        "llama",
        "qwen",
        "gemma",
    ]
    assert float(str(rows[0]["asymmetry_p"])) < 0.05
    assert float(str(rows[0]["asymmetry_excess_low"])) > 0
    told = over_pairs({}, found, pairs=pairs, kin={("llama-0", "llama-1")}, seed=0)["topology"]
    scopes = {(row["donor"], row["receiver"]): row["scope"] for row in told}
    assert scopes.pop(("llama-0", "llama-1")) == "same_architecture"
    assert set(scopes.values()) == {"across"}
    two = topology_rows(
        [one for one in found if "-2" not in one.donor + one.receiver], pairs=pairs, seed=0
    )
    assert {row["status"] for row in two} == {"not measured"}
    assert "asymmetry_p" not in two[0]
