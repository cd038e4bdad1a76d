"""Figures of the causal studies: they carry the tables' numbers and show what decides nothing."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report.synthetic_causal import causal_tables

from actshift.report.tables import select
from actshift.stages.figures import draw_figure
from actshift.studies.ablation.figures import FRAMES, primary_cell
from actshift.studies.registry import CATALOGUE, STUDIES

#: Panels a pair, and those that there are once (a colour bar, a published row).
PANELS = {
    "refusal_effect": (1, 0), "refusal_candidates": (1, 1), "ablation_curves": (4, 4),
    "direction_bars": (3, 0), "side_effects": (4, 0), "kappa_by_layer": (2, 0),
    "calibration_compliance": (0, 5), "calibration_bias_sign": (0, 5),
    "calibration_rank_and_gap": (0, 3),
}  # fmt: skip


def shown(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.get_visible()]


def heights(axis: Axes, *, face: str | None = None) -> set[float]:
    """All y values of an axis' lines, of one marker colour where asked."""
    lines = [one for one in axis.lines if face is None or one.get_markerfacecolor() == face]
    return {round(float(y), 9) for line in lines for y in np.atleast_1d(line.get_ydata())}


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("count", [1, 5])
def test_panels_for_any_number_of_pairs(name: str, count: int) -> None:
    figure = draw_figure(name, causal_tables(tuple(f"pair{index}" for index in range(count))))
    per_pair, once = PANELS[name]
    assert len(shown(figure)) == per_pair * count + once


def test_every_causal_figure_is_counted() -> None:
    others = {"rank_audit", "localization", "misalignment"}
    assert set(PANELS) == set(CATALOGUE.names(STUDIES.keys() - others))


def test_curves_carry_refusal_and_answers_of_the_heldout_zero_edit() -> None:
    tables = causal_tables(("a", "b"))
    axes = draw_figure("ablation_curves", tables).axes
    rows = select(tables["ablation_sweep"], pair="b", protocol="heldout", edit="zero", band="wide")
    for axis, column in ((axes[6], "refusal"), (axes[7], "complied")):
        for frame in FRAMES:
            wanted = {round(float(y), 9) for y in select(rows, frame=frame)[column]}
            assert wanted <= heights(axis)


def test_cells_that_decide_nothing_are_open() -> None:
    tables = causal_tables(("a",))
    sweep = tables["ablation_sweep"]
    sweep["status"] = np.where(sweep["k"] == 3, "broken", "decided")
    axis = draw_figure("ablation_curves", tables).axes[0]
    rows = select(sweep, protocol="heldout", edit="zero", band="narrow", frame="template")
    broken = round(float(select(rows, k=3)["refusal"].iloc[0]), 9)
    sound = round(float(select(rows, k=1)["refusal"].iloc[0]), 9)
    assert broken in heights(axis, face="white")
    assert sound not in heights(axis, face="white")
    assert sound in heights(axis, face=FRAMES["template"].color)


def test_the_decisive_control_is_as_strong_as_the_effect() -> None:
    axis = draw_figure("ablation_curves", causal_tables(("a",))).axes[0]
    widths = {
        frame: max(line.get_linewidth() for line in axis.lines if line.get_color() == stroke.color)
        for frame, stroke in FRAMES.items()
    }
    assert widths["template_harmless"] == widths["template"] > widths["naive"]


def test_a_model_without_a_judge_says_so_and_keeps_its_refusals() -> None:
    axes = draw_figure("ablation_curves", causal_tables(("a",), judged=False)).axes
    assert "no judge" in axes[1].texts[0].get_text()
    assert not axes[0].texts
    faces = {line.get_markerfacecolor() for line in axes[0].lines}
    assert FRAMES["template"].color in faces


def test_published_curves_have_panels_of_their_own() -> None:
    tables = causal_tables(("a",))
    own = draw_figure("ablation_curves", tables | {"ablation_published": pd.DataFrame()})
    both = draw_figure("ablation_curves", tables)
    assert (len(own.axes), len(both.axes)) == (4, 8)
    assert "other, larger models" in both.axes[4].get_ylabel()
    published = tables["ablation_published"]["refusal"].tolist()
    assert 0.54 in published
    assert 0.54 in heights(both.axes[4])
    assert 0.54 not in heights(both.axes[0])


def test_bars_carry_single_effects_and_unstable_ones_are_hatched() -> None:
    tables = causal_tables(("a",))
    axis = draw_figure("direction_bars", tables).axes[0]
    rows = select(tables["direction_ablation"], band="narrow", frame="template", kind="single")
    bars = axis.containers
    assert [bar[0].get_height() for bar in bars] == pytest.approx(rows["refusal_change"].tolist())
    hatched = [bool(bar[0].get_hatch()) for bar in bars]
    assert hatched == [cosine < 0.9 for cosine in rows["self_cosine_min"]]
    assert any(hatched)
    assert not all(hatched)


def test_single_directions_stand_beside_the_controls_at_the_same_k() -> None:
    tables = causal_tables(("a",))
    axis = draw_figure("direction_bars", tables).axes[0]
    control = select(
        tables["ablation_sweep"], protocol="heldout", band="narrow", edit="zero", k=1,
        frame="template_harmless",
    )  # fmt: skip
    assert round(float(control["refusal_change"].iloc[0]), 9) in heights(axis)


def test_only_inversions_beyond_chance_are_joined() -> None:
    tables = causal_tables(("a",))
    ordering = tables["ordering"]
    ordering["exceeds"] = False
    before = len(draw_figure("direction_bars", tables).axes[1].lines)
    chosen = (ordering["test"] == "inversion") & (ordering["later"] == 4)
    mine = (ordering["band"] == "narrow") & (ordering["frame"] == "template")
    ordering["exceeds"] = chosen & mine
    assert len(draw_figure("direction_bars", tables).axes[1].lines) == before + 3


def test_the_primary_cell_is_the_one_that_was_named() -> None:
    tables = causal_tables(("a",))
    sweep = tables["ablation_sweep"]
    assert primary_cell(tables["side_effects"], sweep) == ("narrow", 3)
    named = (sweep["band"] == "wide") & (sweep["k"] == 5)
    assert primary_cell(tables["side_effects"], sweep.assign(primary=named)) == ("wide", 5)
    assert primary_cell(tables["side_effects"], None) == ("narrow", 3)


def test_layers_where_kappa_cannot_pass_are_open_and_equal_models_are_crosses() -> None:
    gap = causal_tables(("a",))["spectral_gap"]
    figure = draw_figure("kappa_by_layer", {"spectral_gap": gap})
    high = gap[gap["status"] == "rank too high"]
    for axis, column in ((figure.axes[0], "kappa"), (figure.axes[1], "kappa_over_bound")):
        assert {round(float(y), 9) for y in high[column]} <= heights(axis, face="white")
        crosses = [line for line in axis.lines if line.get_marker() == "x"]
        assert sum(len(line.get_xdata()) for line in crosses) == 1
    assert {8.0} <= heights(figure.axes[0])


def test_the_chosen_candidate_is_framed_and_named() -> None:
    tables = causal_tables(("a", "b"))
    table = tables["refusal_direction"]
    none = (table["pair"] == "b") & table["chosen"]
    table.loc[none, "verdict"] = "none passes"
    titles = [axis.get_title() for axis in draw_figure("refusal_candidates", tables).axes[:2]]
    assert titles == ["a: passes", "b: none passes, the nearest"]
    (box,) = draw_figure("refusal_candidates", tables).axes[0].patches
    # Layers start at 1 and positions at -5: cells are counted from the lower left.
    assert box.get_center() == pytest.approx((1, 4))


def test_templates_of_unequal_length_share_their_positions() -> None:
    tables = causal_tables(("a", "b"))
    table = tables["refusal_direction"]
    tables["refusal_direction"] = table[(table["pair"] == "a") | (table["position"] == -1)]
    axes = draw_figure("refusal_candidates", tables).axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["-5", "-4", "-3", "-2", "-1"]
    assert axes[1].images[0].get_array().shape == axes[0].images[0].get_array().shape


def test_the_random_range_lies_beside_the_directions_effect() -> None:
    tables = causal_tables(("a",))
    axis = draw_figure("refusal_effect", tables).axes[0]
    effect = tables["refusal_effect"]
    drawn = [float(x) for line in axis.lines for x in np.atleast_1d(line.get_xdata())]
    own = effect[effect["control"].isna()]
    assert all(any(abs(x - rate) < 1e-9 for x in drawn) for rate in own["refused"])
    random = select(effect, control="random")
    assert all(any(abs(x - low) < 0.01 for x in drawn) for low in random["draws_low"])


def test_seeds_are_coloured_by_the_sign_of_the_bias() -> None:
    ablation = causal_tables(("a",))["calibration_ablation"]
    axis = draw_figure("calibration_bias_sign", {"calibration_ablation": ablation}).axes[0]
    rows = select(ablation, variant="full_finetune", projection="principal")
    signs = [one["bias"].iloc[0] > 0 for _, one in rows.groupby("seed")]
    markers = [line.get_marker() for line in axis.lines]
    assert markers == ["^" if sign else "v" for sign in signs]
    assert len(set(markers)) == 2


def test_the_bias_alone_is_a_line_in_every_panel() -> None:
    ablation = causal_tables(("a",))["calibration_ablation"]
    axes = shown(draw_figure("calibration_compliance", {"calibration_ablation": ablation}))
    assert len(axes) == 5
    for axis, (_, rows) in zip(
        axes, ablation.groupby(["variant", "lambda"], sort=False), strict=True
    ):
        alone = rows.drop_duplicates("seed")["compliance_bias_only"].mean()
        assert alone in [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "-."]
