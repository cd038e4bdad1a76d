"""Figures of steering: v over the draws of its nulls, every edit at its own coefficient."""

import numpy as np
import pandas as pd
import pytest
from report.drawn import along, heights, panels, points, rounded, rows_of, shaded
from report.synthetic_misalignment import CHOSEN, LAYERS, misalignment_tables

from actshift.report.tables import select
from actshift.stages.figures import caption, draw_figure
from actshift.studies.misalignment.figures.panels import NULL_STROKES, near, nulls
from actshift.studies.misalignment.kinds import NULLS


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return misalignment_tables(("a", "b"))


def test_v_stands_over_the_draws_of_its_nulls_and_the_logit_bias_on_top(
    tables: dict[str, pd.DataFrame],
) -> None:
    repaired, strongest, code = panels(draw_figure("steering_dose", tables))[:3]
    rows = select(tables["steering"], pair="a", protocol="last_token", norm_rule="norm")
    v = select(rows, control="direction")
    bias = select(tables["steering"], pair="a", protocol="logit_bias")
    for axis, value in ((repaired, "repaired"), (code, "code")):
        assert rounded(v[value]) <= heights(axis)
        assert rounded(bias[value]) <= heights(axis)
        forced = select(tables["steering"], pair="a", protocol="forced_token")[value]
        assert rounded(forced) <= heights(axis)
        assert round(float(v[f"{value}_plain"].iloc[0]), 6) in heights(axis)
    for name in NULLS:
        own = select(rows, control=name)
        assert rounded(own["repaired_plain"] + own["draws_high"]) <= heights(strongest)
    against = nulls(rows)
    band = shaded(repaired)
    assert band.max() == pytest.approx((against["repaired_plain"] + against["draws_high"]).max())
    assert band.min() == pytest.approx((against["repaired_plain"] + against["draws_low"]).min())
    assert CHOSEN in along(repaired)


def test_what_is_broken_stands_open(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["steering"]
    strong = (table["coeff"] == 1.5) & (table["control"] == "direction")
    table.loc[strong & (table["protocol"] == "last_token"), "status"] = "broken"
    axis = panels(draw_figure("steering_dose", tables))[0]
    faces = {
        float(x)
        for line in axis.lines
        if line.get_markerfacecolor() == "white"
        for x in np.atleast_1d(line.get_xdata())
    }
    assert faces == {1.5}
    table.loc[table["protocol"] == "all_tokens", "status"] = "broken"
    layers = panels(draw_figure("steering_layers", tables))[0]
    opened = [line for line in layers.lines if line.get_markerfacecolor() == "white"]
    assert [np.asarray(line.get_ydata()).tolist() for line in opened] == [[2]]


def test_only_equal_norms_enter_the_dose(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["steering"]
    table.loc[table["norm_rule"] == "kl", ["draws_high", "draws_median"]] = 0.777
    repaired, strongest, _ = panels(draw_figure("steering_dose", tables))[:3]
    assert shaded(repaired).max() < 0.9
    assert round(0.2 + 0.777, 6) not in heights(strongest)


def own_nulls(tables: dict[str, pd.DataFrame]) -> dict[tuple[str, int], float]:
    """Leave the nulls of generated edits at one coefficient each, as the study draws them."""
    at = {("layer", 1): 0.25, ("layer", 2): 1.5, ("all_tokens", LAYERS - 1): 1.0}
    for name in ("steering", "misalignment_side_effects"):
        table = tables[name]
        for (protocol, layer), coeff in at.items():
            cell = (table["protocol"] == protocol) & (table["layer"] == layer)
            drawn = cell & table["control"].isin(NULLS)
            table = table[~drawn | (table["coeff"] == coeff)]
        tables[name] = table
    rows = tables["specificity"]
    within = rows[rows["donor"] == rows["receiver"]]
    tables["specificity"] = pd.concat([rows, within.assign(protocol="all_tokens", coeff=1.0)])
    return at


def test_every_protocol_and_layer_stands_at_the_coefficient_of_its_own_nulls(
    tables: dict[str, pd.DataFrame],
) -> None:
    at = own_nulls(tables)
    gain, drop = panels(draw_figure("steering_layers", tables))[:2]
    assert rows_of(gain) == [
        "layer 1, 0.25 v", "layer 2, 1.5 v", "all tokens, 1 v",
        "last token (published), 0.5 v", "logit bias, 0.5 v",
    ]  # fmt: skip
    rows = select(tables["steering"], pair="a", norm_rule="norm")
    for place, ((protocol, layer), coeff) in enumerate(at.items()):
        cell = near(select(rows, protocol=protocol, layer=layer), coeff)
        own = select(cell, control="direction")
        for axis, value in ((gain, "gain"), (drop, "drop")):
            assert (round(float(own[value].iloc[0]), 6), place) in points(axis)
        ends = {x for x, y in points(gain) if y == place}
        drawn = nulls(cell)["draws_low"].min() - 0.003, nulls(cell)["draws_high"].max() + 0.003
        assert {round(float(end), 6) for end in drawn} <= ends
    names = rows_of(panels(draw_figure("steering_side_effects", tables))[0])
    assert names[:4] == [
        "0.5 v, last token (published)", "0.25 v, layer 1", "1.5 v, layer 2", "1 v, all tokens",
    ]  # fmt: skip
    told = caption("steering_layers", tables)
    assert "0.21 to 0.7 at one block of the middle half" in told
    # A pair whose nulls were not drawn stands where it is judged.
    bare = tables["steering"][~tables["steering"]["control"].isin(NULLS)]
    gain = panels(draw_figure("steering_layers", {**tables, "steering": bare}))[0]
    assert rows_of(gain)[:3] == ["layer 1, 0.5 v", "layer 2, 0.5 v", "all tokens, 1 v"]


def test_protocols_run_from_blocks_to_the_published_edit_at_the_chosen_coefficient(
    tables: dict[str, pd.DataFrame],
) -> None:
    gain, drop = panels(draw_figure("steering_layers", tables))[:2]
    assert rows_of(gain) == [
        "layer 1, 0.5 v", "layer 2, 0.5 v", "all tokens, 0.5 v",
        "last token (published), 0.5 v", "logit bias, 0.5 v",
    ]  # fmt: skip
    rows = near(select(tables["steering"], pair="a", norm_rule="norm"), CHOSEN)
    published = select(rows, protocol="last_token", control="direction")
    assert (round(float(published["gain"].iloc[0]), 6), 3) in points(gain)
    assert (round(float(published["drop"].iloc[0]), 6), 3) in points(drop)
    strongest = select(rows, protocol="last_token")["draws_high"].max()
    assert max(x for x, y in points(gain) if y == 3 and x < 0.3) == pytest.approx(strongest + 0.003)


def test_unmatched_kl_is_crossed(tables: dict[str, pd.DataFrame]) -> None:
    repaired, _, norm = panels(draw_figure("steering_equal_kl", tables))[:3]
    for axis in (repaired, norm):
        crossed = [line for line in axis.lines if line.get_marker() == "x"]
        assert [round(float(np.asarray(line.get_ydata())[0])) for line in crossed] == [3]
    assert rows_of(repaired)[3] == NULL_STROKES["orthogonal"].label
    assert {1.0, 3.0} <= along(norm)
    none = tables["steering"][tables["steering"]["norm_rule"] == "norm"]
    empty = draw_figure("steering_equal_kl", {"steering": none})
    assert "no edit at equal KL" in empty.texts[0].get_text()


def test_content_stands_beside_v_on_insecure_and_its_dose(
    tables: dict[str, pd.DataFrame],
) -> None:
    gain, difference, dose = panels(draw_figure("steering_content", tables))[:3]
    assert rows_of(gain) == [
        "v_insecure on rare_safe", "v_insecure on secure", "v_rare_safe on insecure",
        "v_secure on insecure",
    ]  # fmt: skip
    assert {(0.42, 0), (0.25, 0)} <= points(gain)
    assert (0.17, 0) in points(difference)
    assert (0.9, 0) in points(dose)


def test_side_effects_stand_beside_the_same_model_without_the_edit(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["misalignment_side_effects"]
    table.loc[table["control"] == "plain", "insecure"] = 0.77
    code, insecure, topic = panels(draw_figure("steering_side_effects", tables))[:3]
    names = rows_of(code)
    assert names[0] == "0.5 v, last token (published)"
    assert names[-1] == "0.5 mapped v of b"
    assert {NULL_STROKES[name].label for name in NULLS} <= set(names)
    for at in range(len(names)):
        assert {(0.9, at), (1.0, at)} <= points(code)
        assert {(0.85, at), (0.95, at)} <= points(topic)
        assert (0.4, at) in points(insecure)
    assert 0.77 in along(insecure)
