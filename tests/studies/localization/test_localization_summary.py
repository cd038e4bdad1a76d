"""Curves, swaps and the summary of localization: planted truths and slow references."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reference.localization_rows import Made, no_swap, nothing

from actshift.maths.intervals import bootstrap_ends
from actshift.maths.resampling import bootstrap_counts
from actshift.studies.localization.lanes import LaneFacts
from actshift.studies.localization.tables.effects import DRAWS, Sample
from actshift.studies.localization.tables.inputs import PairFiles, cells_of
from actshift.studies.localization.tables.patches import patch_lanes, patching_rows, swap_rows
from actshift.studies.localization.tables.summary import position_rows, summary_rows, top_quarter

Cell = dict[str, object]
NOISE = np.random.default_rng(5).standard_normal((12, 8))


def sample(files: PairFiles, condition: str = "harmful") -> Sample:
    (found,) = (
        one for one in cells_of(files) if (one.condition, one.length) == (condition, "natural")
    )
    return Sample.of(found, pair="p", seed=0)


def row(rows: list[Cell], **facts: object) -> Cell:
    found = [one for one in rows if all(one[key] == value for key, value in facts.items())]
    assert len(found) == 1, f"{len(found)} rows of {facts}"
    return found[0]


def number(value: object) -> float:
    assert isinstance(value, float | int)
    return float(value)


def swapped(share: Callable[[str, int | None], float]) -> list[Cell]:
    """Summary where parts carry these shares, whichever model they are swapped into."""
    files = Made(
        swap=lambda _operation, part, layer: share(part, layer),
        skip=("low_rank", "interpolation", "noise", "random"),
    ).files()
    return summary_rows(sample(files))


def test_one_block_that_carries_all_is_localised_and_its_place_known() -> None:
    rows = swapped(lambda part, layer: float(part == "block" and layer == 1))
    for operation in ("insert", "remove"):
        found = row(rows, statistic="n_eff_over_layers", operation=operation)
        assert found["value"] == pytest.approx(1 / 4)
        assert found["value_high"] == pytest.approx(1 / 4)
        # Block 1 of 4 sits at (1 + 1/2) / 4.
        centre = row(rows, statistic="centre_off_middle", operation=operation)
        assert centre["value"] == pytest.approx(1 / 8)
        assert centre["n_eff_over_layers"] == pytest.approx(1 / 4)
        total = row(rows, statistic="sum_of_shares", operation=operation)
        assert total["value"] == pytest.approx(1.0)
        assert found["gap_low"] == row(rows, statistic="gap")["value_low"]


def test_equal_parts_are_diffuse_and_their_centre_is_the_middle() -> None:
    """Halves of blocks are no units of their own: they would count twice."""
    rows = swapped(lambda part, _layer: 0.3 if part in ("embeddings", "block", "head") else 9.0)
    over = row(rows, statistic="n_eff_over_layers", operation="insert")
    assert over["value"] == pytest.approx(6 / 4)
    units = row(rows, statistic="n_eff_over_units", operation="insert")
    assert units["value"] == pytest.approx(1.0)
    centre = row(rows, statistic="centre_off_middle", operation="remove")
    assert centre["value"] == pytest.approx(0.0, abs=1e-12)
    total = row(rows, statistic="sum_of_shares", operation="insert")
    assert total["value"] == pytest.approx(1.8)


def test_swaps_have_shares_of_either_sign() -> None:
    files = Made(swap=lambda operation, _part, _layer: 0.5 if operation == "insert" else -0.2)
    for condition, sign in (("harmful", 1), ("harmless", -1)):
        rows = swap_rows(sample(files.files(), condition))
        assert len(rows) == 2 * (2 + 3 * 4)
        inserted = row(rows, operation="insert", part="mlp", layer=3)
        assert inserted["share"] == pytest.approx(0.5)
        assert np.sign(number(inserted["effect"])) == sign
        removed = row(rows, operation="remove", part="head")
        assert (removed["share"], removed["layer"]) == (pytest.approx(-0.2), None)
        assert np.sign(number(removed["effect"])) == sign


def hump(direction: str, facts: LaneFacts, pair: int) -> float:
    """At the last prompt token a peak at layer 1; backwards a tenth of it, away from the donor."""
    if facts.experiment == "shuffled":
        return 0.45
    if facts.experiment == "other_condition":
        return 0.06
    if facts.experiment != "patch":
        return 0.0
    height = (0.2, 0.6, 0.4, 0.15)[facts.layer] if facts.positions == "last_prompt" else 1.0
    height += 0.02 * NOISE[pair, facts.layer]
    return height if direction == "forward" else -0.1 * height


@pytest.fixture(scope="module")
def humped() -> Sample:
    return sample(Made(hump, skip=("low_rank", "interpolation")).files())


def test_a_peak_inside_and_what_is_left_of_it(humped: Sample) -> None:
    curve = row(position_rows(humped), direction="forward", positions="last_prompt")
    assert (curve["peak_layer"], curve["interior"]) == (1, 1)
    assert curve["peak_share"] == pytest.approx(0.6, abs=0.02)
    assert curve["edge_over_peak"] == pytest.approx(0.25, abs=0.03)
    assert number(curve["peak_low"]) > 0
    assert curve["of_all"] == pytest.approx(0.15, abs=0.02)
    found = row(summary_rows(humped), statistic="edge_over_peak", positions="last_prompt")
    for end in ("", "_low", "_high"):
        assert found[f"value{end}"] == curve[f"edge_over_peak{end}"]
    assert (found["direction"], found["layer"]) == ("forward", 1)
    assert (found["peak"], found["peak_low"]) == (curve["peak"], curve["peak_low"])


def test_backwards_over_forwards_at_the_forward_peak(humped: Sample) -> None:
    rows = summary_rows(humped)
    found = row(rows, statistic="reverse_over_forward", positions="last_prompt")
    assert (found["value"], found["layer"]) == (pytest.approx(0.1), 1)
    assert found["last_layer_share"] == pytest.approx(0.15, abs=0.02)
    everywhere = row(rows, statistic="reverse_over_forward", positions="all")
    assert everywhere["last_layer_share"] == pytest.approx(1.0, abs=0.03)
    at = {"direction": "forward", "positions": "last_prompt"}
    assert row(rows, statistic="genericity", **at)["value"] == pytest.approx(0.75, abs=0.03)
    assert row(rows, statistic="other_condition_share", **at)["value"] == pytest.approx(0.06)
    last = row(rows, statistic="last_layer_share", **at)
    assert (last["value"], last["layer"]) == (found["last_layer_share"], 3)


def test_a_curve_below_zero_has_no_ratio_to_its_peak(humped: Sample) -> None:
    curve = row(position_rows(humped), direction="reverse", positions="last_prompt")
    assert number(curve["peak_high"]) < 0
    assert np.isnan(number(curve["edge_over_peak"]))
    assert np.isnan(number(curve["top_quarter"]))


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([1.0, 3.0, 0.0, -5.0], 0.75),
        ([1.0] * 8, 0.25),
        ([2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 0.5),
        ([-1.0, -2.0], float("nan")),
    ],
)
def test_top_quarter(effects: list[float], expected: float) -> None:
    assert top_quarter(np.array(effects)) == pytest.approx(expected, nan_ok=True)


def test_numbers_and_intervals_equal_those_of_plain_loops(humped: Sample) -> None:
    """Effect, share, increment and edge / peak by a loop over resamples, clusters and pairs."""
    cell = humped.cell
    names = sorted(set(cell.clusters))
    counts = bootstrap_counts(len(names), draws=DRAWS, rng=np.random.default_rng([0, 54]))
    np.testing.assert_array_equal(humped.resamples.counts, counts)
    logp = patch_lanes(humped, "forward", "last_prompt").logp
    margins = logp[..., 0] - logp[..., 1] - cell.margins["base"]
    drawn: dict[str, list[list[float]]] = {"effect": [], "share": [], "increment": [], "edge": []}
    for draw in counts[:400]:
        weights = [int(draw[names.index(cluster)]) for cluster in cell.clusters]
        mean = [float(np.average(layer, weights=weights)) for layer in margins]
        gap = float(np.average(cell.gap, weights=weights))
        share = [one / gap for one in mean]
        drawn["effect"].append(mean)
        drawn["share"].append(share)
        drawn["increment"].append(
            [now - old for now, old in zip(share, [0.0, *share], strict=False)]
        )
        drawn["edge"].append([mean[-1] / max(mean)])
    few = replace(humped, resamples=replace(humped.resamples, counts=counts[:400].astype(float)))
    rows = [one for one in patching_rows(few) if one["positions"] == "last_prompt"][:4]
    curve = row(position_rows(few), direction="forward", positions="last_prompt")
    for name in ("effect", "share", "increment"):
        ends = bootstrap_ends(np.array(drawn[name]).T, clusters=6)
        for one, (low, high) in zip(rows, ends, strict=True):
            assert (one[f"{name}_low"], one[f"{name}_high"]) == pytest.approx((low, high))
    ends = bootstrap_ends(np.array(drawn["edge"]).T, clusters=6)[0]
    assert [curve["edge_over_peak_low"], curve["edge_over_peak_high"]] == pytest.approx(
        ends.tolist()
    )
    for layer, one in enumerate(rows):
        assert one["effect"] == pytest.approx(margins[layer].mean())
        assert one["share"] == pytest.approx(margins[layer].sum() / cell.gap.sum())
        per_token = [
            (logp[layer, pair] - cell.plain["base"][pair]) / cell.tokens[pair]
            for pair in range(len(cell.pair_ids))
        ]
        expected = np.mean([chosen - rejected for chosen, rejected in per_token])
        assert one["effect_per_token"] == pytest.approx(expected)


def test_a_model_that_nothing_changes_has_no_number_of_units() -> None:
    files = Made(nothing, no_swap, skip=("low_rank", "interpolation")).files()
    rows = summary_rows(sample(files))
    found = row(rows, statistic="n_eff_over_layers", operation="insert")
    assert np.isnan(number(found["value"]))
    assert row(rows, statistic="gap")["status"] == "decided"
    curve = row(position_rows(sample(files)), direction="forward", positions="all")
    assert np.isnan(number(curve["edge_over_peak"]))


def test_row_order_of_the_files_changes_nothing() -> None:
    files = Made(hump, skip=("low_rank", "interpolation", "noise", "random")).files()
    mixed = replace(
        files,
        **{
            name: getattr(files, name).sample(frac=1, random_state=3).reset_index(drop=True)
            for name in ("plain", "patches", "swaps")
        },
    )
    first, second = (pd.DataFrame(patching_rows(sample(one))) for one in (files, mixed))
    keys = ["direction", "positions", "layer"]
    pd.testing.assert_frame_equal(
        first.sort_values(keys).reset_index(drop=True),
        second.sort_values(keys).reset_index(drop=True),
    )
