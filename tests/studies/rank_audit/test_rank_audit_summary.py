from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from actshift.io.tables import read_table
from actshift.maths.frames import band_layers
from actshift.maths.resampling import shifted_range
from actshift.studies.rank_audit.join import (
    measured_summary,
    published_summary,
    weighted_mean,
)
from actshift.studies.rank_audit.study import COLUMNS, RankAudit
from actshift.studies.rank_audit.tables import log_ratio

PUBLISHED = Path(__file__).resolve().parents[3] / "resources" / "published"


@pytest.mark.parametrize(
    ("depth", "band", "layers"),
    [
        (32, "narrow", [14, 16, 18, 20, 22]),
        (32, "wide", [9, 11, 14, 16, 19, 21, 24, 27]),
        (42, "narrow", [18, 20, 23, 26, 29]),
        (28, "narrow", [12, 13, 15, 17, 19]),
        (6, "narrow", [2, 3, 4]),
        (32, "printed", [14, 15, 17, 19, 22]),
        (42, "printed", [19, 22, 25, 27, 29]),
    ],
)
def test_bands_are_the_released_ones(depth: int, band: str, layers: list[int]) -> None:
    assert list(band_layers(depth)[band]) == layers


def test_bands_of_any_depth_lie_inside_and_do_not_repeat() -> None:
    for depth in range(1, 100):
        for name, layers in band_layers(depth).items():
            assert len(set(layers)) == len(layers) > 0, name
            assert 0 <= min(layers) <= max(layers) < depth
    assert "printed" not in band_layers(6)


@pytest.mark.parametrize(
    "bad",
    [
        {"eps": 0.0},
        {"eps_grid": (0.05, 1.0)},
        {"bootstrap_draws": 0},
        {"n_sweep": (0, 10)},
        {"heldout_k": 0},
        {"concept_n": 0},
    ],
)
def test_settings_without_meaning_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError, match="Input should be"):
        RankAudit(**bad)


def published() -> pd.DataFrame:
    return published_summary(
        read_table(PUBLISHED / "effective_rank_per_layer.csv"),
        read_table(PUBLISHED / "arditi_cosine_per_layer.csv"),
    )


# The means the paper prints (its tables and released result files), by hand.
GOLDEN = [
    ("Llama", "naive", "harmful", "last_prompt", 46.41, 96.2, 0.01133, 0.319),
    ("Llama", "template", "harmful", "last_prompt", 11.97, 77.6, 0.00292, 0.337),
    ("Llama", "template", "harmless", "last_prompt", 24.00, 83.4, 0.00586, None),
    ("Llama", "aligned", "harmful", "last_prompt", 54.31, 98.8, 0.01326, None),
    ("Llama", "did", "harmful", "last_prompt", 41.44, 77.6, 0.01012, 0.772),
    ("Llama", "naive", "harmful", "last_8_mean", 38.88, 57.2, 0.00949, None),
    ("Gemma", "naive", "harmful", "last_prompt", 33.93, 86.7, 0.00947, 0.367),
    ("Gemma", "template", "harmful", "last_prompt", 17.38, 76.2, 0.00485, 0.388),
    ("Gemma", "did", "harmful", "last_prompt", 42.57, 76.2, 0.01188, 0.860),
    ("Gemma", "aligned", "harmless", "last_prompt", 76.02, 106.2, 0.02121, None),
    ("Qwen", "template", "harmful", "last_prompt", 15.71, 80.4, 0.00438, 0.179),
    ("Qwen", "template", "harmless", "last_prompt", 17.79, 83.6, 0.00496, None),
]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda r: "-".join(map(str, r[:4])))
def test_published_means_are_reproduced_from_the_layers(row: tuple) -> None:
    family, matrix, inputs, pooling, rank, centered, rho, cosine = row
    table = published()
    [found] = table[
        table["pair"].str.startswith(family)
        & (table["matrix"] == matrix)
        & (table["inputs"] == inputs)
        & (table["pooling"] == pooling)
    ].to_dict("records")
    assert found["mean_rank_eps"] == pytest.approx(rank, abs=0.006)
    assert found["mean_rank_eps_centered"] == pytest.approx(centered, abs=0.06)
    assert found["mean_rho_eps"] == pytest.approx(rho, abs=6e-6)
    if cosine is not None:
        assert found["mean_abs_cos_refusal"] == pytest.approx(cosine, abs=6e-4)
    assert found["n"] == 200


def test_published_rows_are_labelled_as_other_models() -> None:
    table = published()
    assert tuple(table.columns) == COLUMNS["summary"]
    assert set(table["source"]) == {"published"}
    assert table["pair"].str.contains("(published)", regex=False).all()
    assert table.groupby("pair")["d"].unique().map(list).to_dict() == {
        "Llama-3.1-8B (published)": [4096],
        "Gemma-2-9B (published)": [3584],
        "Qwen2.5-7B (published)": [3584],
    }
    inflation = table[(table["matrix"] == "template") & (table["inputs"] == "harmful")]
    values = dict(zip(inflation["pair"], inflation["inflation"], strict=True))
    assert values["Llama-3.1-8B (published)"] == pytest.approx(3.88, abs=0.005)
    assert values["Gemma-2-9B (published)"] == pytest.approx(1.95, abs=0.005)
    assert np.isnan(values["Qwen2.5-7B (published)"])


def test_energy_weights_follow_the_layers_that_move() -> None:
    ranks, norms = np.array([10.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0])
    assert weighted_mean(ranks, norms) == pytest.approx((2 + 4 * 4) / 5)
    assert np.isnan(weighted_mean(ranks, np.zeros(3)))


def test_measured_summary_is_means_by_hand() -> None:
    key = {"pair": "p", "matrix": "template", "inputs": "harmful"}
    rank = pd.DataFrame([{**key, "category": "all", "layer": 0, "d": 64}])
    cosine = pd.DataFrame([{**key, "layer": i, "cos_refusal": c} for i, c in enumerate((0.2, 0.6))])
    pooling = pd.DataFrame(
        [
            {
                **key,
                "layer": i,
                "pooling": "last_prompt",
                "n": 32,
                "rank_eps": r,
                "rank_eps_centered": 2 * r,
                "relative_shift_norm": w,
            }
            for i, (r, w) in enumerate(((8, 0.1), (2, 0.3)))
        ]
    )
    [found] = measured_summary(rank, cosine, pooling).to_dict("records")
    assert found["mean_rank_eps"] == 5
    assert found["weighted_rank_eps"] == pytest.approx((8 * 0.01 + 2 * 0.09) / 0.1)
    assert found["mean_rho_eps"] == 5 / 64
    assert found["mean_rank_over_min_dn"] == 5 / 32
    assert found["mean_abs_cos_refusal"] == pytest.approx(0.4)
    assert np.isnan(found["inflation"])


def test_ranges_keep_the_spread_and_move_the_place() -> None:
    draws = np.array([4.0, 5.0, 5.0, 6.0, np.nan])
    assert shifted_range(9.0, draws) == (8.0, 10.0)
    assert np.isnan(shifted_range(9.0, np.array([np.nan]))).all()


def test_log_ratio_of_a_zero_rank_is_missing() -> None:
    found = log_ratio(np.array([4.0, 0.0, 3.0]), np.array([2.0, 2.0, 0.0]))
    assert found[0] == pytest.approx(np.log(2))
    assert np.isnan(found[1:]).all()
