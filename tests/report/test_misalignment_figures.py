"""Figures of misalignment: the tables' numbers, and the strongest control beside them."""

import numpy as np
import pandas as pd
import pytest
from report.drawn import along, heights, panels, points, rows_of
from report.synthetic_misalignment import LAYERS, SPILLOVER, misalignment_tables

from actshift.stages.figures import draw_figure
from actshift.studies.misalignment.figures.panels import ADAPTERS
from actshift.studies.misalignment.kinds import KINDS, UNSEEN
from actshift.studies.registry import CATALOGUE

NAMES = CATALOGUE.names(["misalignment"])
#: Panels a pair of models, where a figure has a row or a tile a pair.
PANELS = {
    "spillover": 3, "dose": 4, "separation": 4, "detection": 1, "direction_cosines": 3,
    "steering_dose": 3, "steering_layers": 2, "steering_equal_kl": 3, "steering_content": 3,
    "steering_side_effects": 3, "ridge_maps": 2,
}  # fmt: skip


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return misalignment_tables(("a", "b"))


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("count", [2, 4])
def test_every_pair_has_its_panels_and_its_size(name: str, count: int) -> None:
    pairs = tuple(f"pair{place}" for place in range(count))
    shown = panels(draw_figure(name, misalignment_tables(pairs)))
    assert len(shown) == PANELS[name] * count
    for row, pair in enumerate(pairs):
        first = shown[row * PANELS[name]]
        label = f"{first.get_ylabel()} {first.get_title()}"
        assert pair in label
        assert name in ("dose", "direction_cosines") or "n 80, 36 clusters" in label


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_that_failed_leaves_the_others_drawn(
    name: str, tables: dict[str, pd.DataFrame]
) -> None:
    kept = {
        key: table[~table[["pair", "donor"]].isin(["b"]).any(axis=1)]
        if {"pair", "donor"} <= set(table)
        else table[table["pair"] == "a"]
        if "pair" in table
        else table
        for key, table in tables.items()
        if key not in ("specificity", "ridge_maps", "topology")
    }
    figure = draw_figure(name, kept)
    if name in ("ridge_maps", "topology"):
        assert "no rows" in figure.texts[0].get_text()
    else:
        assert len(panels(figure)) == PANELS[name]
        assert [axis for axis in figure.axes if axis.lines or axis.images]


def test_rates_of_every_adapter_stand_beside_the_untuned_model(
    tables: dict[str, pd.DataFrame],
) -> None:
    code, refused, insecure = panels(draw_figure("spillover", tables))[:3]
    assert rows_of(code) == [name for name in ADAPTERS if name in SPILLOVER]
    for at, name in enumerate(rows_of(code)):
        assert (SPILLOVER[name], at) in points(code)
        assert (round(1 - SPILLOVER[name], 6), at) in points(refused)
        assert (SPILLOVER[name], at) in points(insecure)
    assert code.get_xlim()[0] < 0 < 1 < code.get_xlim()[1]


def test_other_kinds_of_question_and_other_splits_are_not_drawn(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["spillover"]
    table.loc[table["split"] == "select", ["code", "code_low", "code_high"]] = 0.123
    table.loc[table["kind"] == "howto", "code"] = 0.321
    code = panels(draw_figure("spillover", tables))[0]
    assert not {0.123, 0.321} & along(code)


def test_the_dose_shows_that_secure_was_hardly_moved(tables: dict[str, pd.DataFrame]) -> None:
    loss = panels(draw_figure("dose", tables))[0]
    names = rows_of(loss)
    assert set(names) == {*KINDS, *UNSEEN}
    assert (0.05, names.index("secure")) in points(loss)
    band = loss.patches[0].get_extents().transformed(loss.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.4, 0.6))


def test_losses_of_adapters_from_elsewhere_are_not_known(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["dose"]
    table[["first_loss", "last_loss"]] = np.nan
    table["delta_norm"] = 3.0
    loss, norm = panels(draw_figure("dose", tables))[:2]
    assert [text.get_text() for text in loss.texts] == ["not known"]
    assert not norm.texts
    assert norm.get_xlim()[0] <= 0
    assert norm.get_xlim()[1] > 3.0


def test_separation_is_on_held_out_questions_of_every_adapter(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["separation"]
    table.loc[table["split"] == "fit", "balanced_accuracy"] = 0.99
    secure = (table["adapter"] == "secure") & (table["projected_on"] == "insecure")
    table.loc[secure & (table["split"] == "heldout"), "balanced_accuracy"] = 0.51
    on_v, on_own = panels(draw_figure("separation", tables))[:2]
    assert 0.99 not in heights(on_v) | heights(on_own)
    assert 0.51 in heights(on_v) - heights(on_own)
    assert len([line for line in on_v.lines if np.size(line.get_ydata()) == LAYERS]) == len(KINDS)
    assert 0.5 in heights(on_v), "chance"
    assert (LAYERS - 1, 0.996) in points(on_v)
    del tables["misalignment_published"]
    assert 0.996 not in heights(panels(draw_figure("separation", tables))[0])


def test_detection_has_a_line_a_negative(tables: dict[str, pd.DataFrame]) -> None:
    figure = draw_figure("detection", tables)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "insecure_unseen against: untuned (chat)"
    assert {"rare_safe", "rare_safe_unseen"} < set(labels)
    table = tables["detection"]
    more = pd.concat([table, table.assign(positive="rare_safe_unseen")])
    assert len(panels(draw_figure("detection", {"detection": more}))) == 4


def test_cosines_are_symmetric_and_of_the_first_middle_and_last_layer(
    tables: dict[str, pd.DataFrame],
) -> None:
    first, middle, last = panels(draw_figure("direction_cosines", tables))[:3]
    assert [axis.get_title() for axis in (first, middle, last)] == ["layer 0", "layer 2", "layer 3"]
    grid = np.asarray(last.images[0].get_array(), dtype=float)
    assert grid.shape == (len(KINDS), len(KINDS))
    np.testing.assert_allclose(grid, grid.T)
    np.testing.assert_allclose(np.diag(grid), 1)
    assert grid[0, 1] == pytest.approx(0.6)


def test_maps_stand_beside_their_own_null_on_both_sides(tables: dict[str, pd.DataFrame]) -> None:
    r2, cosine = panels(draw_figure("ridge_maps", tables))[:2]
    assert r2.get_ylabel().startswith("to a")
    assert rows_of(r2) == ["from b"]
    assert {0.6, 0.03} <= along(r2)
    assert {0.3, 0.2, -0.2} <= along(cosine)
    assert 0.2 not in along(r2), "another layer's"


def test_the_matrix_is_donor_by_receiver_and_says_what_is_specific(
    tables: dict[str, pd.DataFrame],
) -> None:
    moved = tables["topology"]
    one = (moved["donor"] == "b") & (moved["receiver"] == "a")
    moved.loc[one, ["share", "share_low", "share_high"]] = [0.44, 0.4, 0.5]
    share, margin = panels(draw_figure("topology", tables))[:2]
    grid = np.asarray(share.images[0].get_array(), dtype=float)
    assert grid.tolist() == [[0.6, 0.3], [0.44, 0.6]]
    texts = {tuple(text.get_position()): [] for text in margin.texts}
    for text in margin.texts:
        texts[tuple(text.get_position())].append(text.get_text())
    specific = {place for place, told in texts.items() if "specific" in " ".join(told)}
    assert specific == {(0, 0), (1, 1)}
    table = tables["specificity"]
    table.loc[table["donor"] == table["receiver"], "verdict"] = "inconclusive"
    margin = panels(draw_figure("topology", tables))[1]
    assert not any("specific" in text.get_text() for text in margin.texts)


def test_over_seeds_families_are_drawn_by_what_they_give_and_take() -> None:
    names = tuple(f"{family}-{seed}" for seed in range(3) for family in ("gemma", "llama"))
    tables = misalignment_tables(names)
    table = tables["topology"]
    across = table["donor"] != table["receiver"]
    gives = table["donor"].str.startswith("gemma")
    table.loc[across, ["seeds", "asymmetry", "asymmetry_p"]] = [3, 0.4, 0.03]
    table.loc[across & gives, ["share", "donor_effect", "receiver_effect"]] = [0.6, 0.2, -0.1]
    table.loc[across & ~gives, ["share", "donor_effect", "receiver_effect"]] = [0.2, -0.2, 0.1]
    # Models of different seeds are not what the fit is made of.
    table.loc[across & (table["donor"].str[-1] != table["receiver"].str[-1]), "share"] = -9.0
    families = table["donor"].str[:-2] == table["receiver"].str[:-2]
    table.loc[across & families, "scope"] = "same_architecture"
    drawn = draw_figure("topology", tables)
    share, _, means, effects = panels(drawn)[:4]
    assert np.asarray(share.images[0].get_array()).shape == (6, 6)
    assert {text.get_text() for text in share.texts} <= {"", "0.60", "0.20", "-9.00"}
    grid = np.asarray(means.images[0].get_array(), dtype=float)
    np.testing.assert_allclose(grid, [[np.nan, 0.6], [0.2, np.nan]])
    assert "mean over 3 seeds; asymmetry p 0.03" in means.get_title()
    assert rows_of(effects) == ["gemma", "llama"]
    assert [line.get_xdata().tolist() for line in effects.lines[:2]] == [[0.2, -0.2], [0.1, -0.1]]
    one_seed = {"topology": table.assign(donor_effect=np.nan)}
    assert len(panels(draw_figure("topology", one_seed))) == 2
