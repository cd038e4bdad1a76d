"""Figures of localization: they carry the tables' numbers, their controls and what is published."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from report.drawn import plain_caption
from report.synthetic_localization import localization_tables, published_rows

from actshift.report.point import spread
from actshift.report.tables import select
from actshift.stages.figures import caption, draw_figure
from actshift.studies.localization.figures.panels import POSITIONS, published_coefficients
from actshift.studies.registry import CATALOGUE

NAMES = CATALOGUE.names(["localization"])
#: Panels a pair of models.
PANELS = {
    "patch_forward": 2, "patch_reverse": 2, "patch_controls": 4, "patch_interpolation": 4,
    "patch_sources": 2, "patch_low_rank": 5, "patch_positions": 4, "swap_shares": 4,
    "state_distances": 4, "lasso_coefficients": 6, "lasso_stability": 6,
}  # fmt: skip


def heights(axis: Axes) -> set[float]:
    """All y values of an axis' lines."""
    return {round(float(y), 9) for line in axis.lines for y in np.atleast_1d(line.get_ydata())}


def rounded(values: pd.Series) -> set[float]:
    return {round(float(value), 9) for value in values}


def harmful(table: pd.DataFrame, **cell: str | int | bool) -> pd.DataFrame:
    return select(table, pair="a", condition="harmful", **cell)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 3])
def test_conditions_never_share_a_panel(name: str, count: int) -> None:
    pairs = tuple(f"pair{place}" for place in range(count))
    figure = draw_figure(name, localization_tables(pairs))
    assert len(figure.axes) == PANELS[name] * count
    for row in range(count):
        titles = [axis.get_title() for axis in figure.axes[: PANELS[name]]]
        assert sum("harmful" in title for title in titles) == PANELS[name] // 2
        label = figure.axes[row * PANELS[name]].get_ylabel()
        assert f"pair{row}\nn 40, 36 clusters" in label


@pytest.mark.parametrize("name", NAMES)
def test_one_condition_alone_and_a_pair_without_rows_are_drawn(name: str) -> None:
    tables = localization_tables(("a", "b"))
    for key, table in tables.items():
        if "condition" in table:
            tables[key] = table[(table["condition"] == "harmful")]
    assert len(draw_figure(name, tables).axes) == 2 * -(-PANELS[name] // 2)
    gone = dict(tables)
    figure = CATALOGUE.figures[name]
    for table in (*figure.tables, *figure.beside):
        if "condition" in tables[table]:
            gone[table] = tables[table][tables[table]["pair"] == "a"]
    assert len(draw_figure(name, gone).axes) == -(-PANELS[name] // 2)


@pytest.mark.parametrize(
    ("name", "direction", "sign"),
    [("patch_forward", "forward", 1), ("patch_reverse", "reverse", -1)],
)
def test_curves_are_effects_by_layer_between_zero_and_the_gap(
    name: str, direction: str, sign: int
) -> None:
    tables = localization_tables(("a",))
    axis = draw_figure(name, tables).axes[0]
    for positions in POSITIONS:
        rows = harmful(tables["patching"], direction=direction, positions=positions)
        assert rounded(rows["effect"]) <= heights(axis)
    assert {0.0, sign * 90.0} <= heights(axis)


@pytest.mark.parametrize("name", ["patch_forward", "patch_controls", "patch_sources"])
@pytest.mark.parametrize("n_layers", [3, 32])
def test_markers_stay_at_their_layer(name: str, n_layers: int) -> None:
    figure = draw_figure(name, localization_tables(("a",), n_layers=n_layers))
    marked = [line for axis in figure.axes for line in axis.lines if line.get_marker() != "None"]
    at = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in marked])
    assert len(at) > 10
    assert np.abs(at - np.round(at)).max() < 0.2


def test_the_published_peak_is_shaded_at_its_depth_and_only_where_it_is_known() -> None:
    tables = localization_tables(("a",), n_layers=6)
    with_band = draw_figure("patch_forward", tables)
    del tables["localization_published"]
    without = draw_figure("patch_forward", tables)
    assert [len(figure.axes[0].patches) for figure in (with_band, without)] == [1, 0]
    band = (
        with_band.axes[0]
        .patches[0]
        .get_extents()
        .transformed(with_band.axes[0].transData.inverted())
    )
    assert (band.x0, band.x1) == pytest.approx((7 / 15 * 5, 8 / 15 * 5))
    legends = [len(figure.legends[0].get_texts()) for figure in (with_band, without)]
    assert legends[0] == legends[1] + 1


def test_every_control_stands_beside_the_patch() -> None:
    tables = localization_tables(("a",))
    axis = draw_figure("patch_controls", tables).axes[0]
    controls = harmful(tables["controls"], positions="all")
    for control in ("identity", "shuffled", "other_condition", "noise"):
        assert rounded(select(controls, control=control)["effect"]) <= heights(axis)
    patch = harmful(tables["patching"], direction="forward", positions="all")
    assert rounded(patch["effect"]) <= heights(axis)
    assert rounded(select(controls, control="random")["draws_median"]) <= heights(axis)


def test_the_pooled_dose_has_its_interval_and_low_rank_both_readings() -> None:
    tables = localization_tables(("a",))
    axis = draw_figure("patch_interpolation", tables).axes[0]
    rows = harmful(tables["interpolation"], direction="forward")
    pooled = rows[rows["layer"].isna()]
    assert rounded(pooled["effect"]) <= heights(axis)
    segments = [s for c in axis.collections for s in c.get_segments()]
    assert {round(float(s[0, 1]), 6) for s in segments} == {
        round(float(low), 6) for low in pooled["effect_low"]
    }
    axes = draw_figure("patch_low_rank", tables).axes
    own = harmful(tables["low_rank"], basis="shift", keep_rest=True)
    own = own[own["layer"].isna()]
    assert rounded(own["of_full"]) <= heights(axes[0])
    assert rounded(own["share_of_variance"]) <= heights(axes[4])
    assert round(161.6 / 160.3, 9) in heights(axes[1])
    assert round(161.6 / 160.3, 9) not in heights(axes[0])
    assert 0.986 in heights(axes[4])
    assert 0.3 in heights(axes[0]), "noise"


def test_units_are_bars_in_order_of_depth_with_their_effective_number() -> None:
    tables = localization_tables(("a",), n_layers=3)
    axis = draw_figure("swap_shares", tables).axes[0]
    rows = harmful(tables["block_swap"], operation="insert")
    units = rows[rows["part"].isin(["embeddings", "block", "head"])]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx(units["share"].tolist())
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["emb", "0", "1", "2", "head"]
    assert axis.texts[0].get_text() == "effective units 3.5 (3.0 to 4.0) of 5"
    tables["block_swap"]["share"] = np.nan
    assert "no gap" in draw_figure("swap_shares", tables).axes[0].texts[0].get_text()


def test_effects_of_positions_point_towards_the_donor() -> None:
    tables = localization_tables(("a",))
    axis = draw_figure("patch_positions", tables).axes[1]
    places = {round(float(x), 9) for line in axis.lines for x in np.atleast_1d(line.get_xdata())}
    assert {54.0, 18.0, 90.0} <= places
    assert [text.get_text() for text in axis.texts] == ["3", "3", "3", "1"]


def test_sparse_fits_say_how_well_they_predict_and_what_chance_does() -> None:
    tables = localization_tables(("a",))
    axis = draw_figure("lasso_coefficients", tables).axes[0]
    assert axis.texts[0].get_text() == "1 of 4 layers\nR² out -0.03\n(-0.09 to 0.03)"
    assert {0.4, -0.18} <= heights(axis)
    stable = draw_figure("lasso_stability", tables).axes[0]
    assert [bar.get_height() for bar in stable.patches] == [0.2, 0.7, 0.2, 0.2]
    assert {0.5, 0.15} <= heights(stable)


def test_published_coefficients_are_in_the_order_of_layers() -> None:
    table = published_rows().sample(frac=1, random_state=0)
    assert published_coefficients(table) == [-0.18 * (layer == 8) for layer in range(16)]
    assert published_coefficients(None) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_opens_with_what_is_seen(name: str) -> None:
    tables = localization_tables(("a", "b"))
    text = caption(name, tables)
    assert text.endswith(plain_caption(name))
    seen = text.removesuffix(plain_caption(name))
    assert "harmful pairs, n 40 in 36 clusters). " in seen
    assert "n/a" not in seen
    assert caption(name, {}) == plain_caption(name)


def test_what_is_seen_follows_the_tables() -> None:
    tables = localization_tables(("a", "b"))
    assert "rises with every step in 2 of 2 models" in caption("patch_interpolation", tables)
    steps = tables["interpolation"]
    steps.loc[(steps["pair"] == "b") & (steps["alpha"] == 1.0), "step_low"] = -1.0
    assert "rises with every step in 1 of 2 models" in caption("patch_interpolation", tables)
    tables["block_swap"].loc[tables["block_swap"]["part"] == "head", "share"] = 0.9
    assert "put into the base: 0.9 of the gap (head)" in caption("swap_shares", tables)


def test_a_spread_is_one_number_where_all_agree() -> None:
    series = [pd.Series(x) for x in ([1.0, 1.0], [2.0, 1.0, np.nan], [np.nan])]
    assert [spread(one) for one in series] == ["1", "1 to 2", "n/a"]
