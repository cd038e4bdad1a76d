"""Localization tables of what is small or missing: no gap, one cluster, one layer, no control."""

from dataclasses import replace

import pandas as pd
import pytest
from reference.localization_rows import Made, nothing
from reference.localization_truth import HARMFUL, cell, planted, rows_of, sample, tables

from actshift.errors import UserError
from actshift.studies.localization.lanes import LaneFacts
from actshift.studies.localization.tables.inputs import cells_of
from actshift.studies.localization.tables.patches import (
    control_rows,
    interpolation_rows,
    low_rank_rows,
    patching_rows,
    source_rows,
)
from actshift.studies.localization.tables.summary import position_rows, summary_rows


def test_without_a_gap_there_are_effects_and_no_shares() -> None:
    found = tables(Made(planted, gaps={"harmful": 0.0, "harmless": 8.0}, spread=3.0).files())
    own = rows_of(found["patching"], **HARMFUL)
    assert set(own["status"]) == {"no gap"}
    assert own["why"].str.contains("holds 0").all()
    assert own["share"].isna().all()
    assert own["increment"].isna().all()
    assert own["effect"].notna().all()
    assert rows_of(found["interpolation"], **HARMFUL)["step"].isna().all()
    assert rows_of(found["positions"], **HARMFUL)["peak"].isna().all()
    summary = rows_of(found["summary"], condition="harmful", length="natural")
    assert summary.loc[summary["statistic"] != "gap", "value"].isna().all()
    assert (rows_of(found["patching"], condition="harmless")["status"] == "decided").all()


def test_one_cluster_has_no_interval_and_no_shares() -> None:
    found = pd.DataFrame(patching_rows(sample(Made(planted, pairs=2).files())))
    assert set(found["status"]) == {"no gap"}
    assert found["why"].str.contains("one cluster").all()
    assert found["effect_low"].isna().all()


def test_a_patch_beyond_the_mean_draw_has_not_beaten_each_of_them() -> None:
    def weak(direction: str, facts: LaneFacts, pair: int) -> float:
        return 0.07 if facts.experiment == "patch" else planted(direction, facts, pair)

    rows = pd.DataFrame(control_rows(sample(Made(weak).files())))
    row = cell(rows, direction="forward", control="random", positions="all", layer=2)
    assert row["effect"] < row["patch_effect"] < row["draws_high"]
    assert row["beats_draws"] == 0


def test_one_condition_has_no_other_condition() -> None:
    own = sample(Made(planted, gaps={"helpful": 5.0}).files(), "helpful")
    controls = {row["control"] for row in control_rows(own)}
    assert "shuffled" in controls
    assert "other_condition" not in controls
    statistics = {row["statistic"] for row in summary_rows(own)}
    assert "genericity" in statistics
    assert "other_condition_share" not in statistics


def test_an_experiment_that_was_not_run_leaves_its_table_empty() -> None:
    files = Made(planted, skip=("interpolation", "low_rank", "source")).files()
    for length in ("natural", "matched"):
        own = sample(files, length=length)
        assert patching_rows(own)
        assert not [*interpolation_rows(own), *low_rank_rows(own, files.bases), *source_rows(own)]


def test_without_noise_or_a_control_basis_their_columns_are_empty() -> None:
    files = Made(planted, skip=("noise",)).files()
    own = sample(replace(files, patches=files.patches[files.patches["basis"] != "random"]))
    found = pd.DataFrame(low_rank_rows(own, files.bases))
    assert set(found["basis"].dropna()) == {"shift", "states", "base_states"}
    assert found["over_controls"].isna().all()
    assert found["noise_of_full"].isna().all()


def test_a_model_of_one_layer() -> None:
    def all_of_it(_direction: str, facts: LaneFacts, _pair: int) -> float:
        return 0.0 if facts.experiment in ("noise", "random") else 1.0

    own = sample(Made(all_of_it, layers=1).files())
    row = cell(pd.DataFrame(position_rows(own)), **HARMFUL, positions="last_prompt")
    assert (row["peak_layer"], row["interior"], row["top_quarter"]) == (0, 0, 1.0)
    assert row["edge_over_peak"] == pytest.approx(1.0)
    patched = cell(pd.DataFrame(patching_rows(own)), **HARMFUL, positions="all")
    assert patched["increment"] == pytest.approx(1.0)
    assert interpolation_rows(own)
    assert low_rank_rows(own, Made(layers=1).files().bases)


def test_a_lane_that_lacks_a_pair_is_named() -> None:
    files = Made(nothing).files()
    with pytest.raises(
        UserError, match=r"patches\.parquet: direction reverse, lane .* has no score"
    ):
        cells_of(replace(files, patches=files.patches.iloc[:-1]))
