"""Kappa by layer on planted shifts, what counts as informative, and the published summary."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import calibration as slow
from reference.synthetic_pair import Stream

from actshift.engine.stores import PromptRows
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.maths.gap import spectral_gap
from actshift.studies.spectral_gap.join import behaviour_rates, from_published, summary_table
from actshift.studies.spectral_gap.stage import gap_status, gap_table, kappa_range
from actshift.studies.spectral_gap.study import COLUMNS, Kappa
from actshift.zoo.language import language

PUBLISHED = Path(__file__).resolve().parents[3] / "resources" / "published"
RELEASED = "spectral_gap_llama_per_layer.csv"
IDS = [f"p{i:02d}" for i in range(24)]
PROMPTS = PromptRows("harmful", tuple(IDS), ("a",) * 24, tuple(f"c{i // 3}" for i in range(24)))
WIDTH = 12


def readers(*, layers: int = 3, seed: int = 0, **ranks: int) -> dict[str, Stream]:
    """Base, tuned, and references whose separation from tuned has a flat spectrum of that rank."""
    rng = np.random.default_rng(seed)
    shape = (layers, 1, len(IDS), WIDTH)
    base = rng.standard_normal(shape)
    tuned = base + rng.standard_normal(shape)
    found = {"base": base, "tuned": tuned}
    for name, rank in ranks.items():
        left = np.linalg.qr(rng.standard_normal((len(IDS), WIDTH)))[0][:, :rank]
        right = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:, :rank]
        found[name] = tuned + 5 * left @ right.T
    return {name: Stream(values.astype(np.float32), IDS) for name, values in found.items()}


def table(streams: dict[str, Stream], prompts: PromptRows = PROMPTS) -> pd.DataFrame:
    return gap_table(streams, prompts, Kappa(eps=0.05, half_sample_draws=40), pair="own", seed=1)


def rows_of(streams: dict[str, Stream], name: str, layer: int) -> np.ndarray:
    return (streams[name].values - streams["base"].values)[layer, 0].astype(np.float64)


def test_numbers_are_those_of_the_definition() -> None:
    streams = readers(one=1, six=6)
    found = table(streams)
    assert tuple(found.columns) == COLUMNS["spectral_gap"]
    assert found["reference"].tolist() == ["one"] * 3 + ["six"] * 3
    assert found["layer"].tolist() == [0, 1, 2] * 2
    for row in found.itertuples():
        honest, unsafe = (rows_of(streams, n, row.layer) for n in ("tuned", row.reference))
        rank, kappa = slow.kappa(honest, unsafe, 0.05)
        assert row.rank_S == rank
        assert row.kappa == pytest.approx(kappa, rel=1e-5)
        assert row.norm_unsafe == pytest.approx(np.linalg.norm(unsafe), rel=1e-6)
        assert row.kappa_over_bound == pytest.approx(kappa * 0.05 * rank / 2, rel=1e-5)
        assert row.kappa_low <= row.kappa * (1 + 1e-9)
        assert row.kappa_high >= row.kappa * (1 - 1e-9)
        assert (row.n, row.clusters, row.d) == (24, 8, WIDTH)


def test_ranks_above_four_and_layers_without_difference_are_told_apart() -> None:
    found = table(readers(none=0, four=4, five=5)).groupby("reference")["status"].unique()
    assert found.map(list).to_dict() == {
        "none": ["no difference"],
        "four": ["informative"],
        "five": ["rank too high"],
    }
    empty = table(readers(none=0))
    assert empty[["kappa", "kappa_low", "kappa_high", "bound", "sigma_r"]].isna().all(axis=None)
    assert (empty[["rank_S", "sigma_1"]] == 0).all(axis=None)


def test_statuses_follow_the_bound() -> None:
    assert gap_status(0, informative=False) == "no difference"
    assert gap_status(4, informative=True) == "informative"
    assert gap_status(5, informative=False) == "rank too high"


def test_only_the_prompts_asked_for_are_read() -> None:
    streams = readers(one=1)
    few = PromptRows("harmful", tuple(IDS[:9]), ("a",) * 9, PROMPTS.clusters[:9])
    assert set(table(streams, few)["n"]) == {9}
    assert set(streams["one"].asked) == set(IDS[:9])


def test_one_draw_serves_all_layers_and_references() -> None:
    """Equal data in another layer and under another name: equal ranges."""
    streams = readers(one=2)
    for stream in streams.values():
        stream.values[2] = stream.values[0]
    streams["again"] = streams["one"]
    found = table(streams).set_index(["reference", "layer"])[["kappa", "kappa_low", "kappa_high"]]
    pd.testing.assert_series_equal(found.loc["one", 0], found.loc["one", 2], check_names=False)
    pd.testing.assert_series_equal(found.loc["one", 0], found.loc["again", 0], check_names=False)


def test_the_range_stops_where_kappa_must() -> None:
    rows = np.outer(np.ones(6), np.arange(1.0, 5.0))
    gap = spectral_gap(rows, -rows)
    low, high = kappa_range(gap, np.array([1.0, 2.0, 4.0]), eps=0.05)
    assert low == pytest.approx(20.0)
    assert high == pytest.approx(40.0)
    assert np.isnan(kappa_range(spectral_gap(rows, rows), np.ones(3), eps=0.05)).all()


def test_a_reference_of_another_depth_is_named() -> None:
    streams = readers(one=1)
    streams["one"] = Stream(streams["one"].values[:2], IDS)
    with pytest.raises(UserError, match=r"own\.one has 2 layers, own\.base has 3"):
        table(streams)


def test_the_published_summary_is_the_papers() -> None:
    summary = summary_table(table(readers(one=1)), {}, read_table(PUBLISHED / RELEASED))
    assert tuple(summary.columns) == COLUMNS["spectral_gap_summary"]
    released = summary[summary["source"] == "published"].set_index("reference")
    total = released.loc["all"]
    assert (total["layers"], total["above_8"], total["no_difference"]) == (90, 1, 6)
    assert total["kappa_median"] == pytest.approx(0.0064, abs=5e-5)
    assert total["kappa_max"] == pytest.approx(8.64, abs=5e-3)
    lexi = released.loc["Orenguteng/Llama-3.1-8B-Lexi-Uncensored-V2"]
    assert (lexi["layers"], lexi["depth"], lexi["rank_S_median"]) == (26, 32, 20.5)
    medians = released["rank_S_median"].drop("all").tolist()
    assert medians == [39, 20.5, 28]
    # What the paper counts as 90 layers below the threshold could hardly have been above it.
    assert total["informative"] + total["rank_too_high"] == total["layers"]
    assert total["informative"] < 10


def test_published_kappas_keep_their_bound() -> None:
    released = from_published(read_table(PUBLISHED / RELEASED))
    assert len(released) == 3 * 32
    share = released["kappa_over_bound"].dropna()
    assert len(share) == 90
    assert share.between(0, 1).all()


def answers(refused: Sequence[bool], text: str, condition: str) -> pd.DataFrame:
    rows = {"refused": list(refused), "text": text, "category": "weapon", "condition": condition}
    return pd.DataFrame(rows).assign(cluster=lambda table: [f"c{i // 2}" for i in table.index])


def test_a_reference_that_still_refuses_is_seen_in_the_summary() -> None:
    steps = "First, sharpen the edge, then fit the grip."
    off = answers([False] * 4, "Yes, they do.", "harmless")
    rates = {
        ("own", "tuned"): pd.concat([answers([True] * 4, "I cannot help.", "harmful"), off]),
        ("own", "one"): pd.concat([answers([True, False, False, False], steps, "harmful"), off]),
    }
    lang = language("tiny")
    found = {key: behaviour_rates(rows, lang=lang) for key, rows in rates.items()}
    gaps = table(readers(one=1, two=3))
    summary = summary_table(gaps, found, read_table(PUBLISHED / RELEASED))
    here = summary[summary["source"] == "here"].set_index("reference")
    assert here.loc["one", ["refused_harmful", "refused_harmful_honest"]].tolist() == [0.25, 1.0]
    assert here.loc["one", ["on_topic_harmful", "on_topic_harmful_honest"]].tolist() == [1.0, 0.0]
    assert here.loc["one", "on_topic_harmless"] == 0.0
    assert here.loc["one", "clusters_harmful"] == 2
    # No answers, no rates: neither for a reference without them nor for all together.
    assert here.loc[["two", "all"], "refused_harmful"].isna().all()
    assert here.loc["all", "layers"] == len(gaps)
    assert here.loc["all", "informative"] == (gaps["status"] == "informative").sum()


def test_without_a_language_nobody_knows_what_is_on_topic() -> None:
    rows = pd.concat([answers([True], "x", c) for c in ("harmful", "harmless")])
    found = behaviour_rates(rows, lang=None)
    assert found["refused_harmful"] == 1.0
    assert np.isnan(found["on_topic_harmful"])
