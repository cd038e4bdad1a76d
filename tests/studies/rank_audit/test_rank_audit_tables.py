"""The audit on in-memory stores with planted rank, direction and held-out structure."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import spectrum as slow
from reference.synthetic_pair import CATEGORIES, SyntheticPair, make_prompts

from actshift.maths.frames import band_layers
from actshift.prompts.records import Prompt
from actshift.studies.rank_audit.stage import TABLES, audit_pair
from actshift.studies.rank_audit.study import COLUMNS, RankAudit

SETTINGS = RankAudit(
    bootstrap_draws=20, half_sample_draws=20, n_sweep_draws=10, null_draws=40, n_sweep=(10, 20, 99)
)
QUICK = SETTINGS.model_copy(
    update={"bootstrap_draws": 3, "half_sample_draws": 3, "n_sweep_draws": 2, "null_draws": 3}
)
SETS = {name: name for name in ("harmful", "harmless")}
RANK, TEMPLATE_RANK = 3, 9
Tables = dict[str, pd.DataFrame]


def audit(stores: SyntheticPair, prompts: dict[str, list[Prompt]], **changes: Any) -> Tables:
    arguments = {"settings": QUICK, "pair": "p", "sets": SETS, "seed": 0}
    return audit_pair(stores, prompts, **(arguments | changes))


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[Prompt]]:
    return make_prompts()


@pytest.fixture(scope="module")
def stores(prompts: dict[str, list[Prompt]]) -> SyntheticPair:
    return SyntheticPair(prompts, positions=8, mean=40.0, noise=0.01)


@pytest.fixture(scope="module")
def tables(stores: SyntheticPair, prompts: dict[str, list[Prompt]]) -> Tables:
    return audit(stores, prompts, settings=SETTINGS, pair="planted")


def cell(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def fit_rows(stores: SyntheticPair, prompts: dict[str, list[Prompt]], layer: int) -> np.ndarray:
    """Harmful template shift of the fit prompts, by hand."""
    keep = [row.split == "fit" for row in prompts["harmful"]]
    tuned, base = (stores.streams[r, "harmful", "chat"].values for r in ("tuned", "base"))
    return (tuned[layer, -1].astype(np.float64) - base[layer, -1])[keep]


def test_every_table_has_its_columns_and_the_pair(tables: Tables) -> None:
    assert tuple(tables) == TABLES
    for name, table in tables.items():
        assert tuple(table.columns) == COLUMNS[name]
        assert len(table) > 0, name
        assert set(table["pair"]) == {"planted"}


def test_cells_are_complete_and_unique(tables: Tables) -> None:
    cells = tables["rank"][["matrix", "inputs", "category", "layer"]]
    assert not cells.duplicated().any()
    assert len(cells) == 7 * (1 + len(CATEGORIES)) * 2
    assert set(cell(tables["rank"], matrix="did")["inputs"]) == {"harmful"}


def test_ranks_are_those_of_the_loops(
    tables: Tables, stores: SyntheticPair, prompts: dict[str, list[Prompt]]
) -> None:
    for layer in (0, 1):
        rows = fit_rows(stores, prompts, layer)
        [found] = cell(
            tables["rank"], matrix="template", inputs="harmful", category="all", layer=layer
        ).to_dict("records")
        assert found["rank_eps"] == slow.rank_eps(rows, 0.05) == 1
        assert found["rank_eps_centered"] == slow.rank_eps(slow.centre(rows), 0.05) == RANK
        assert (found["n"], found["d"]) == rows.shape
        assert found["rho_eps"] == found["rank_eps"] / rows.shape[1]
        assert found["shift_norm"] == pytest.approx(np.linalg.norm(rows) / np.sqrt(len(rows)))
        assert found["mean_share"] > 0.99


def test_planted_ranks_without_a_mean() -> None:
    prompts = make_prompts()
    found = audit(SyntheticPair(prompts, noise=0.001), prompts)["rank"]
    ranks = cell(found, category="all").groupby(["matrix", "inputs"])["rank_eps"].max()
    assert ranks["template", "harmful"] == ranks["template", "harmless"] == RANK
    assert RANK < ranks["naive", "harmful"] <= RANK + TEMPLATE_RANK
    assert ranks["aligned", "harmful"] <= TEMPLATE_RANK


def test_did_and_template_agree_once_centred(tables: Tables) -> None:
    parts = [
        cell(tables["rank"], matrix=m, inputs="harmful").set_index(["category", "layer"])
        for m in ("did", "template")
    ]
    a, b = (part["rank_eps_centered"] for part in parts)
    assert (a == b).all()


def test_cumulative_shares_rise_to_one(tables: Tables) -> None:
    for _, part in tables["cumulative_variance"].groupby(["matrix", "inputs", "layer"]):
        assert (np.diff(part["share"]) >= 0).all()
        assert part["share"].iloc[-1] == pytest.approx(1.0, abs=0.05)


def test_planted_directions_generalise_and_no_others(tables: Tables) -> None:
    found = cell(tables["heldout_rank"], matrix="template", inputs="harmful")
    assert set(found["knee"]) == {RANK + 1}  # the mean and the planted frame
    assert (cell(found, k=RANK + 1)["share_heldout"] > 0.999).all()
    assert (found["share_low"] <= found["share_heldout"] + 1e-12).all()
    assert set(found["clusters_heldout"]) == {5}


def test_inflation_is_the_ratio_at_equal_n(tables: Tables) -> None:
    found = tables["inflation"]
    np.testing.assert_allclose(found["ratio"], found["rank_naive"] / found["rank_template"])
    np.testing.assert_allclose(np.exp(found["log_ratio"]), found["ratio"])
    assert (found["log_ratio_low"] <= found["log_ratio"]).all()
    assert (found["log_ratio"] <= found["log_ratio_high"]).all()
    assert (found["half_n"] == 20).all()


def test_cosines_and_the_algebra_beside_them(tables: Tables) -> None:
    did = cell(tables["cosine"], matrix="did")
    # The base has no contrast of its own, so the means alone predict the cosine.
    assert (did["cos_refusal"] > 0.98).all()
    np.testing.assert_allclose(did["cos_refusal"], did["cos_refusal_from_means"], atol=0.02)
    assert (did["base_difference_ratio"] < 0.1).all()
    assert (did["cos_refusal_centered"] < 0.5).all()
    assert did["cos_control_from_means"].notna().all()
    others = tables["cosine"][tables["cosine"]["matrix"] != "did"]
    assert others["cos_refusal_from_means"].isna().all()
    template = cell(others, matrix="template", inputs="harmful")
    assert (template["cos_own_mean"] > 0.999).all()
    by_category = tables["cosine_by_category"]
    assert set(by_category["category"]) == set(CATEGORIES)


def test_bootstrap_is_biased_down_and_half_samples_say_at_which_n() -> None:
    prompts = make_prompts(fit=30)
    pair = SyntheticPair(prompts, layers=1, d_model=200, rank=60, noise=0.3, seed=4)
    found = cell(audit(pair, prompts, settings=SETTINGS)["bootstrap"], matrix="template")
    assert (found["boot_mean"] < found["rank_eps"] - 2).all()
    assert (found["boot_high"] < found["rank_eps"]).all()
    assert (
        (found["range_low"] <= found["rank_eps"]) & (found["rank_eps"] <= found["range_high"])
    ).all()
    assert (found["sub_n"] == 60).all()
    np.testing.assert_allclose(found["boot_distinct"] / 120, 1 - np.exp(-1), atol=0.03)


def test_n_sweep_is_nested_clipped_and_first_n_follows_the_file(
    tables: Tables, stores: SyntheticPair, prompts: dict[str, list[Prompt]]
) -> None:
    found = cell(tables["n_sweep"], matrix="template", inputs="harmful", layer=1)
    assert found["n"].tolist() == [10, 20, 40]
    rows = fit_rows(stores, prompts, 1)
    assert found["rank_first_n"].tolist() == [slow.rank_eps(rows[:n], 0.05) for n in (10, 20, 40)]
    assert found["draws"].tolist() == [10, 10, 1]


def test_eps_table_has_layers_and_bands(tables: Tables) -> None:
    found = tables["eps_sensitivity"]
    assert set(found["scope"]) == {"layer", "band"}
    for _, part in cell(found, scope="layer").groupby(["matrix", "inputs", "layer"]):
        assert (np.diff(part.sort_values("eps")["rank_eps"]) <= 0).all()
    bands = cell(found, scope="band", matrix="naive", inputs="harmful", eps=0.05)
    assert bands["layer"].isna().all()
    for row in bands.to_dict("records"):
        layers = list(band_layers(2)[row["band"]])
        inside = cell(found, scope="layer", matrix="naive", inputs="harmful", eps=0.05)
        expected = inside[inside["layer"].isin(layers)]["rank_eps"].mean()
        assert row["rank_eps"] == pytest.approx(expected)


def test_concepts_are_compared_at_equal_n(tables: Tables) -> None:
    found = tables["concept_baseline"]
    published, matched = cell(found, matched=False), cell(found, matched=True)
    assert set(published["n_template"]) == {40}
    assert set(published["n"]) == set(matched["n"]) == set(matched["n_template"]) == {24}
    assert set(found["role"]) == {"base", "tuned"}
    assert (
        (matched["low"] <= matched["rank_eps"]) & (matched["rank_eps"] <= matched["high"])
    ).all()


def test_last_8_mean_is_the_mean_of_what_is_there(
    prompts: dict[str, list[Prompt]], tables: Tables
) -> None:
    assert set(tables["pooling"]["pooling"]) == {"last_prompt", "last_8_mean"}
    short = SyntheticPair(prompts, positions=8, noise=0.01, seed=5)
    # Eight equal positions, of which half are absent: masking must not change the mean.
    for stream in short.streams.values():
        stream.values = np.repeat(stream.values[:, -1:], 8, axis=1)
    equal = audit(short, prompts)["pooling"]
    for stream in short.streams.values():
        stream.present[:4] = False
        stream.values[:, :4] = np.nan
    masked = audit(short, prompts)["pooling"]
    pd.testing.assert_frame_equal(equal, masked)
    both = [
        cell(equal, pooling=name)["rank_eps"].tolist() for name in ("last_prompt", "last_8_mean")
    ]
    assert both[0] == both[1]


def test_concepts_of_one_position_do_not_cost_the_pooled_rows(
    prompts: dict[str, list[Prompt]],
) -> None:
    pair = SyntheticPair(prompts, positions=8)
    for (_, name, _), stream in pair.streams.items():
        if name == "concepts":
            stream.values, stream.present = stream.values[:, -1:], stream.present[-1:]
    found = audit(pair, prompts)
    assert set(found["pooling"]["pooling"]) == {"last_prompt", "last_8_mean"}


def test_a_store_of_last_prompts_has_no_pooled_rows(prompts: dict[str, list[Prompt]]) -> None:
    found = audit(SyntheticPair(prompts), prompts)
    assert set(found["pooling"]["pooling"]) == {"last_prompt"}


def test_only_the_heldout_table_sees_heldout_prompts(prompts: dict[str, list[Prompt]]) -> None:
    """Held-out and select activations are replaced by rubbish: no fitted number may move."""
    clean = audit(SyntheticPair(prompts, noise=0.1), prompts)
    spoilt = SyntheticPair(prompts, noise=0.1)
    rng = np.random.default_rng(0)
    for (_, name, _), stream in spoilt.streams.items():
        out = [row.split != "fit" for row in prompts[name]]
        stream.values[:, :, out] = rng.normal(size=stream.values[:, :, out].shape) * 50
    found = audit(spoilt, prompts)
    for name in TABLES:
        columns = [c for c in COLUMNS[name] if name != "heldout_rank"]
        pd.testing.assert_frame_equal(clean[name][columns], found[name][columns])
    a, b = clean["heldout_rank"], found["heldout_rank"]
    pd.testing.assert_frame_equal(a[["share_fit", "n_fit"]], b[["share_fit", "n_fit"]])
    assert not np.allclose(a["share_heldout"], b["share_heldout"])


def test_one_seed_one_result(stores: SyntheticPair, prompts: dict[str, list[Prompt]]) -> None:
    a, b = (audit(stores, prompts) for _ in range(2))
    for name in TABLES:
        pd.testing.assert_frame_equal(a[name], b[name])


def test_a_pair_that_does_not_differ_has_rank_zero(prompts: dict[str, list[Prompt]]) -> None:
    pair = SyntheticPair(prompts)
    for (role, name, template), stream in pair.streams.items():
        if role == "tuned":
            stream.values = pair.streams["base", name, template].values
    found = audit(pair, prompts)
    template = cell(found["rank"], matrix="template")
    assert (template["rank_eps"] == 0).all()
    assert (template["relative_shift_norm"] == 0).all()
    assert found["inflation"]["log_ratio"].isna().all()
    assert cell(found["cosine"], matrix="template")["cos_refusal"].isna().all()


def test_no_concepts_no_baseline(prompts: dict[str, list[Prompt]]) -> None:
    without = {name: rows for name, rows in prompts.items() if name != "concepts"}
    found = audit(SyntheticPair(without), without)
    assert len(found["concept_baseline"]) == 0
    assert tuple(found["concept_baseline"].columns) == COLUMNS["concept_baseline"]
    assert found["cosine"]["cos_control_from_means"].isna().all()
