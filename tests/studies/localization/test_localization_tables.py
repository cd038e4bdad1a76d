"""Tables of patches and controls on made-up rows whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reference.localization_rows import Made
from reference.localization_truth import HARMFUL, STEP, cell, planted, rows_of, sample, tables

from actshift.studies.localization.join import patch_tables
from actshift.studies.localization.study import COLUMNS
from actshift.studies.localization.tables.patches import patching_rows


@pytest.fixture(scope="module")
def made() -> dict[str, pd.DataFrame]:
    return tables(Made(planted).files())


def test_every_row_has_the_columns_of_its_table() -> None:
    found = patch_tables(Made(planted).files(), pair="p", seed=0)
    attribution = {"distances", "probe", "lasso", "lasso_stability"}
    assert set(found) | attribution == set(COLUMNS)
    for name, rows in found.items():
        assert rows
        for row in rows:
            assert set(row) == set(COLUMNS[name]), name


def test_a_layer_that_carries_the_whole_gap(made: dict[str, pd.DataFrame]) -> None:
    found = rows_of(made["patching"], **HARMFUL, positions="all").sort_values("layer")
    assert found["share"].to_numpy() == pytest.approx(np.array(STEP))
    assert found["increment"].to_numpy() == pytest.approx(np.array([0, 1, 0, 0]), abs=1e-12)
    row = found.iloc[1]
    assert row["effect"] == pytest.approx(row["gap"])
    assert (row["effect_low"], row["effect_high"]) == pytest.approx(
        (row["gap_low"], row["gap_high"])
    )
    # A ratio is resampled as a ratio: the spread of the gap cancels.
    assert (row["share_low"], row["share_high"]) == pytest.approx((1.0, 1.0))
    assert row["chosen_change"] == pytest.approx(0.6 * row["gap"])
    assert row["rejected_change"] == pytest.approx(-0.4 * row["gap"])
    assert (row["n"], row["clusters"], row["status"], row["damage"]) == (12, 6, "decided", 0)


def test_a_share_is_positive_towards_the_donor_whatever_the_signs(
    made: dict[str, pd.DataFrame],
) -> None:
    """Backwards the margin falls; on harmless pairs the gap itself is negative."""
    for condition, sign in (("harmful", 1), ("harmless", -1)):
        for direction, way, share in (("forward", 1, 1.0), ("reverse", -1, 0.5)):
            row = cell(
                made["patching"],
                condition=condition,
                length="natural",
                direction=direction,
                positions="prompt",
                layer=3,
            )
            assert row["share"] == pytest.approx(share)
            assert np.sign(row["effect"]) == sign * way
            assert row["gap"] == pytest.approx({1: 20, -1: -8}[sign], abs=1.0)
            assert row["status"] == "decided"


def test_identity_is_exactly_nothing_and_whole_head_exactly_the_donor(
    made: dict[str, pd.DataFrame],
) -> None:
    for direction in ("forward", "reverse"):
        own = rows_of(made["controls"], control="identity", direction=direction)
        assert len(own) == 2 * 4 * 4
        for column in ("effect", "effect_low", "effect_high", "largest", "share", "damage"):
            assert (own[column] == 0).all(), column
        whole = rows_of(made["controls"], control="whole_head", direction=direction)
        assert whole["layer"].tolist() == [3, 3]
        assert (whole["largest"] == 0).all()
        assert whole["share"].to_numpy() == pytest.approx(np.ones(2))


def test_draws_are_averaged_and_the_patch_must_beat_each_of_them(
    made: dict[str, pd.DataFrame],
) -> None:
    at = {**HARMFUL, "positions": "all", "control": "random"}
    row = cell(made["controls"], **at, layer=2)
    assert (row["draws"], row["beats_draws"]) == (3, 1)
    gap = row["gap"]
    ends = [row[f"draws_{name}"] for name in ("low", "median", "high")]
    assert ends == pytest.approx([0, 0.05 * gap, 0.1 * gap])
    assert row["share"] == pytest.approx(0.05)
    assert row["largest"] > 0.1 * gap
    assert row["difference"] == pytest.approx(0.95 * gap)
    assert row["of_patch"] == pytest.approx(0.05)
    # At layer 0 the patch is nothing: no draw is beaten and no ratio to it means anything.
    first = cell(made["controls"], **at, layer=0)
    assert first["beats_draws"] == 0
    assert np.isnan(first["of_patch"])
    shuffled = cell(made["controls"], **{**at, "control": "shuffled"}, layer=2)
    assert pd.isna(shuffled["beats_draws"])
    assert shuffled["of_patch"] == pytest.approx(0.9)


def test_on_harmless_pairs_a_draw_is_beaten_by_going_further_down(
    made: dict[str, pd.DataFrame],
) -> None:
    row = cell(
        made["controls"],
        **{**HARMFUL, "condition": "harmless"},
        positions="all",
        control="random",
        layer=2,
    )
    assert row["patch_effect"] < row["draws_low"] < row["draws_high"] <= 0
    assert row["beats_draws"] == 1


def test_steps_of_interpolation_by_layer_and_pooled(made: dict[str, pd.DataFrame]) -> None:
    for direction in ("forward", "reverse"):
        own = rows_of(made["interpolation"], **{**HARMFUL, "direction": direction})
        pooled = rows_of(own, layer=None).sort_values("alpha")
        gap = pooled["gap"].iloc[0]
        # Three of four layers carry alpha squared; positive in either direction.
        assert pooled["share"].to_numpy() == pytest.approx(0.75 * np.array([0, 0.25, 1]))
        assert np.isnan(pooled["step"].iloc[0])
        assert pooled["step"].to_numpy()[1:] == pytest.approx(0.75 * gap * np.array([0.25, 0.75]))
        assert (pooled["step_low"].to_numpy()[1:] > 0).all()
        flat = rows_of(own, layer=0)
        assert (flat["step"].dropna() == 0).all()


def test_sources_stand_beside_the_donors_own_patch(made: dict[str, pd.DataFrame]) -> None:
    own = rows_of(made["sources"], condition="harmful", direction="reverse", layer=2)
    assert set(own["length"]) == {"matched"}
    shares = {(row["source"], row["positions"]): row["share"] for _, row in own.iterrows()}
    assert shares == pytest.approx(
        {
            ("donor", "completion"): 0.5,
            ("chosen", "completion"): 0.8,
            ("rejected", "completion"): -0.3,
            ("contrast", "completion"): 0.4,
            ("donor", "prompt"): 0.5,
            ("contrast", "prompt"): 0.4,
        }
    )


def test_low_rank_over_its_controls_by_hand(made: dict[str, pd.DataFrame]) -> None:
    at = {**HARMFUL, "positions": "all", "rank": 4}
    one = cell(made["low_rank"], **at, basis="states", keep_rest=True, layer=2)
    assert (one["of_full"], one["over_controls"]) == pytest.approx((0.6, 0.35))
    assert (one["d"], one["k_over_d"]) == (16, 0.25)
    pooled = cell(made["low_rank"], **at, basis="states", keep_rest=True, layer=None)
    # Mean over layers of the effect over mean over layers of the full one: .6 over .75.
    assert pooled["of_full"] == pytest.approx(0.8)
    assert pooled["over_controls"] == pytest.approx((0.6 - 0.25) / 0.75)
    assert pooled["noise_of_full"] == pytest.approx(0.15 / 0.75)
    assert pooled["full_effect"] == pytest.approx(0.75 * pooled["gap"])
    # Fold 0 holds 10 tokens at k/d, fold 1 30 at k/d + .1; the fit is apart.
    assert pooled["share_of_variance"] == pytest.approx(0.25 + 0.075)
    assert pooled["share_of_variance_fit"] == pytest.approx(0.5)
    for basis, keep in (("random", True), ("base_states", True), ("states", False)):
        other = cell(made["low_rank"], **at, basis=basis, keep_rest=keep, layer=None)
        assert np.isnan(other["over_controls"])
    whole = cell(made["low_rank"], **{**at, "rank": None}, basis=None, layer=None)
    assert (whole["of_full"], whole["k_over_d"]) == pytest.approx((1.0, 1.0))
    # Where the full patch is nothing there is nothing to be a part of.
    assert np.isnan(cell(made["low_rank"], **at, basis="shift", layer=0)["of_full"])


def test_both_completions_falling_is_damage() -> None:
    """Of a harmful pair p(chosen) and p(rejected) both fall, by ever less for chosen."""
    files = Made(planted).files()
    hurt = (files.patches["experiment"] == "patch") & (files.patches["layer"] == 2)
    patches = files.patches.copy()
    base = files.plain[files.plain["model"] == "base"].set_index(["pair_id", "length"])
    keys = pd.MultiIndex.from_frame(patches.loc[hurt, ["pair_id", "length"]])
    for side, fall in (("logp_chosen", 1.0), ("logp_rejected", 5.0)):
        patches.loc[hurt, side] = base.loc[keys, side].to_numpy() - fall
    found = pd.DataFrame(patching_rows(sample(replace(files, patches=patches))))
    row = cell(found, **HARMFUL, positions="all", layer=2)
    assert (row["effect"], row["damage"]) == (pytest.approx(4.0), 1)
    assert cell(found, **HARMFUL, positions="all", layer=1)["damage"] == 0
