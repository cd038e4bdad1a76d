"""Lanes of the ablation: which there are, what they do, and what their rows say."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from studies.ablation.test_ablation_frames import PROMPTS, SETTINGS, fit, make_pair

from actshift.edits import Ablate, Patch
from actshift.studies.ablation.frames import FRAMES, Fitted
from actshift.studies.ablation.lanes import (
    LANES,
    Planned,
    old_or_new,
    patches,
    published,
    single_directions,
    sweep,
    with_plain,
)
from actshift.studies.ablation.study import Ablation


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(make_pair())


@pytest.fixture(scope="module")
def planned(fitted: Fitted) -> list[Planned]:
    return [
        *sweep(fitted, SETTINGS),
        *single_directions(fitted, SETTINGS),
        *old_or_new(fitted),
        *patches(fitted, SETTINGS, "substitution"),
        *patches(fitted, SETTINGS, "mode_toggle"),
    ]


def facts(planned: list[Planned], **wanted: Any) -> list[dict[str, Any]]:
    return [
        one.facts
        for one in planned
        if all(one.facts.get(key) == value for key, value in wanted.items())
    ]


def test_names_are_unique_and_rows_complete(planned):
    names = [one.lane.name for one in planned]
    assert len(set(names)) == len(names)
    assert "plain" not in names
    for one in planned:
        assert set(one.facts) <= set(LANES)
        assert one.facts["lane"] == one.lane.name
        assert one.facts["draw"] == one.lane.draw


def test_every_lane_edits_each_layer_of_its_band_once_at_the_output_and_every_token(planned):
    for one in planned:
        layers = [placed.layer for placed in one.lane.edits]
        assert layers == [int(layer) for layer in str(one.facts["layers"]).split()]
        assert len(set(layers)) == len(layers)
        assert {(p.site, p.positions) for p in one.lane.edits} == {("resid_post", "all")}
    assert {one.facts["layers"] for one in planned} == {"2 3 4", "1 2 3 4 5"}


def test_counts_of_lanes(planned, fitted):
    counts = Counter(one.facts["experiment"] for one in planned)
    # The shift has rank 4 at most, so k = 8 is left out where a frame has too few columns.
    widths = {name: fitted.named[name].width((1, 2, 3, 4, 5)) for name in FRAMES}
    fitting = {name: sum(k <= width for k in SETTINGS.ks) for name, width in widths.items()}
    assert fitting["template"] == 2
    assert fitting["activation"] == 3
    assert counts["sweep"] == 2 * 2 * (sum(fitting.values()) + 3 * SETTINGS.random_draws)
    assert counts["old_or_new"] == 3 * 2 * 2
    patched = sum(fitting[name] for name in ("template", "did", "template_harmless"))
    assert counts["substitution"] == 2 * (patched + 3 * SETTINGS.patch_draws) + 2
    assert counts["mode_toggle"] == counts["substitution"]


def test_no_k_above_the_width():
    wide = Ablation(ks=(1, 24, 25, 50), random_draws=1, patch_draws=1)
    lanes = sweep(fit(make_pair(), wide), wide)
    drawn = {one.facts["k"] for one in lanes if one.facts["frame"] == "random"}
    assert drawn == {1, 24}
    assert all(int(str(one.facts["k"])) <= int(str(one.facts["d"])) for one in lanes)


def test_single_directions_pairs_and_leave_one_out_sets():
    settings = Ablation(ks=(1, 5), directions=10, random_draws=1, patch_draws=1)
    pair = make_pair()
    rng = np.random.default_rng(4)
    for stream in pair.streams.values():  # full rank, so that there are ten directions
        stream.values = stream.values + rng.normal(size=stream.values.shape).astype("f4")
    lanes = single_directions(fit(pair, settings), settings)
    sets = [str(one.facts["directions"]) for one in lanes if one.facts["frame"] == "template"]
    assert sets[:10] == [str(i) for i in range(1, 11)]
    assert Counter(one.count("+") for one in sets) == {0: 10, 1: 10, 3: 5}
    assert {"1+2", "4+5", "2+3+4+5", "1+2+3+4"} <= set(sets)
    assert {(one.facts["band"], one.facts["edit"]) for one in lanes} == {("narrow", "zero")}
    for one in lanes:
        columns = [int(i) - 1 for i in str(one.facts["directions"]).split("+")]
        assert one.facts["k"] == len(columns)
        for placed in one.lane.edits:
            assert isinstance(placed.edit, Ablate)
            assert placed.edit.basis.shape == (24, len(columns))


def test_zero_has_no_centre_and_mean_has_that_of_its_layer(fitted, planned):
    for one in planned:
        for placed in one.lane.edits:
            if one.facts["edit"] == "patch":
                assert isinstance(placed.edit, Patch)
                assert placed.edit.alpha == 1.0
                continue
            assert isinstance(placed.edit, Ablate)
            if one.facts["edit"] == "zero":
                assert placed.edit.centre is None
            else:
                assert placed.edit.centre is fitted.centres[placed.layer]


def test_energies_are_those_of_the_span_on_heldout_activations(planned):
    pair = make_pair()
    read = {
        (role, name): pair.open(role, name, "chat")
        for role in ("base", "tuned")
        for name in ("harmful", "harmless")
    }
    heldout = {
        name: [p.id for p in PROMPTS[name] if p.split == "heldout"]
        for name in ("harmful", "harmless")
    }

    def share(lane: Planned, rows_of: Any) -> float:
        found = []
        for placed in lane.lane.edits:
            rows = rows_of(placed.layer).astype(float)
            assert not isinstance(placed.edit, Patch) or placed.edit.basis is not None
            basis = placed.edit.basis  # type: ignore[union-attr]
            found.append(np.sum((rows @ basis) ** 2) / np.sum(rows**2))
        return float(np.mean(found))

    for lane in planned[::7]:
        if lane.facts["frame"] == "whole":
            continue
        for name in ("harmful", "harmless"):
            wanted = share(
                lane, lambda n, name=name: read["tuned", name].read(n, -1, heldout[name])
            )
            assert lane.facts[f"energy_{name}"] == pytest.approx(wanted)
        wanted = share(
            lane,
            lambda n: (
                read["tuned", "harmful"].read(n, -1, heldout["harmful"]).astype(float)
                - read["base", "harmful"].read(n, -1, heldout["harmful"])
            ),
        )
        assert lane.facts["shift_share"] == pytest.approx(wanted)


def test_more_directions_hold_more_energy_and_mean_edits_as_much_as_zero_edits(planned):
    for band in ("narrow", "wide"):
        rows = {
            edit: facts(planned, experiment="sweep", frame="activation", band=band, edit=edit)
            for edit in ("zero", "mean")
        }
        energies = [row["energy_harmful"] for row in rows["zero"]]
        assert energies == sorted(energies)
        assert energies == [row["energy_harmful"] for row in rows["mean"]]


def test_the_planted_shift_lies_in_its_own_frame_and_not_in_a_random_one(planned):
    own = facts(planned, experiment="sweep", frame="template", k=3, edit="zero")
    drawn = facts(planned, experiment="sweep", frame="random", k=3, edit="zero")
    assert min(row["shift_share"] for row in own) > 0.9
    assert np.mean([row["shift_share"] for row in drawn]) < 0.35


def test_old_or_new_carries_the_cosine_with_the_tuned_direction(planned):
    rows = facts(planned, experiment="old_or_new")
    assert {row["directions"] for row in rows} == {"tuned", "base", "new"}
    assert all(
        row["cos_with_tuned"] == pytest.approx(1.0) for row in rows if row["directions"] == "tuned"
    )
    assert all(row["k"] == 1 for row in rows)


def test_the_published_protocol_is_the_zero_sweep_with_one_draw(planned):
    chosen = published(planned)
    assert {one.facts["experiment"] for one in chosen} == {"sweep"}
    assert {one.facts["edit"] for one in chosen} == {"zero"}
    assert {one.facts["draw"] for one in chosen} == {None, 0}
    assert {one.facts["frame"] for one in chosen} == {*FRAMES, "random"}


def test_the_ceiling_of_a_patch_is_the_whole_stream(planned):
    rows = [one for one in planned if one.facts["frame"] == "whole"]
    assert len(rows) == 4
    for one in rows:
        assert one.facts["k"] == one.facts["d"] == 24
        assert all(
            isinstance(placed.edit, Patch) and placed.edit.basis is None
            for placed in one.lane.edits
        )


def test_the_unedited_model_comes_first(planned):
    lanes = with_plain(planned)
    assert lanes[0].name == "plain"
    assert lanes[0].edits == ()
    assert len(lanes) == len(planned) + 1


def test_views_of_one_frame_share_their_memory(planned, fitted):
    one = next(p for p in planned if p.lane.name == "sweep.activation.narrow.zero.k3")
    edit = one.lane.edits[0].edit
    assert isinstance(edit, Ablate)
    assert np.shares_memory(edit.basis, fitted.named["activation"].bases[2])
