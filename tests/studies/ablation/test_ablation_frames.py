"""Frames of a made-up pair: what is fitted, on which prompts, and the energy that is measured."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from reference.synthetic_pair import Stream, SyntheticPair, make_prompts

from actshift.engine.stores import CONDITIONS
from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.prompts.splits import HeldoutLeakError
from actshift.studies.ablation.frames import (
    FRAMES,
    Activations,
    Fitted,
    asked_prompts,
    balanced,
    bands_of,
    fit_layer,
    fit_pair,
    of_split,
)
from actshift.studies.ablation.study import Ablation

SETTINGS = Ablation(ks=(1, 3, 8), directions=4, random_draws=3, patch_draws=2)
PROMPTS = make_prompts()
SETS = {name: name for name in CONDITIONS}


def make_pair() -> SyntheticPair:
    return SyntheticPair(PROMPTS, layers=6, d_model=24, rank=3, template_rank=5, mean=4.0)


def split_ids(split: str) -> set[str]:
    return {p.id for rows in PROMPTS.values() for p in rows if p.split == split}


def fit(
    pair: SyntheticPair,
    settings: Ablation = SETTINGS,
    prompts: Mapping[str, Sequence[Prompt]] = PROMPTS,
) -> Fitted:
    return fit_pair(Activations(pair, SETS), prompts, settings, seed=0)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(make_pair())


def test_bands_of_the_published_models_and_no_layer_twice():
    assert bands_of(32)["narrow"] == (14, 16, 18, 20, 22)
    assert bands_of(32)["wide"] == (9, 11, 14, 16, 19, 21, 24, 27)
    assert bands_of(28)["narrow"] == (12, 13, 15, 17, 19)
    assert bands_of(42)["narrow"] == (18, 20, 23, 26, 29)
    assert bands_of(6) == {"narrow": (2, 3, 4), "wide": (1, 2, 3, 4, 5)}


def test_clusters_take_turns_in_file_order():
    rows = [p for p in PROMPTS["harmful"] if p.split == "heldout"]
    chosen = balanced(rows, 12)
    counts = [sum(p.cluster == name for p in chosen) for name in {p.cluster for p in rows}]
    assert len(chosen) == 12
    assert max(counts) - min(counts) <= 1
    assert [p.id for p in chosen[:5]] == [p.id for p in rows if p.id.endswith("-00")]
    assert sorted(p.id for p in balanced(rows, 999)) == sorted(p.id for p in rows)


def test_a_split_without_prompts_is_named():
    rows = [p for p in PROMPTS["harmless"] if p.split == "fit"]
    with pytest.raises(UserError, match="'b' has no 'harmless' prompts in the split heldout"):
        asked_prompts(rows, "harmless", "heldout", 5, prompt_set="b")
    with pytest.raises(UserError, match="0 'harmless' prompts in the split heldout"):
        fit(make_pair(), prompts={**PROMPTS, "harmless": rows})


def test_fitting_reads_fit_prompts_and_nothing_else():
    pair = make_pair()
    acts = Activations(pair, SETS)
    chosen = {name: of_split(PROMPTS[name], "fit", name) for name in CONDITIONS}
    for layer in range(6):
        fit_layer(acts, chosen, layer, SETTINGS, seed=0)
    asked = {name for stream in pair.streams.values() for name in stream.asked}
    assert asked
    assert asked <= split_ids("fit")


def test_a_heldout_prompt_is_refused_where_something_is_fitted():
    acts = Activations(make_pair(), SETS)
    chosen = {name: of_split(PROMPTS[name], "fit", name) for name in CONDITIONS}
    for condition in CONDITIONS:
        stranger = of_split(PROMPTS[condition], "heldout", condition)[:1]
        leaked = {**chosen, condition: [*chosen[condition], *stranger]}
        with pytest.raises(HeldoutLeakError, match="frames of layer 1: chosen on heldout"):
            fit_layer(acts, leaked, 1, SETTINGS, seed=0)


def test_other_heldout_activations_change_measured_energies_and_nothing_fitted(fitted):
    pair = make_pair()
    heldout = split_ids("heldout")
    rng = np.random.default_rng(9)
    for key, stream in pair.streams.items():
        rows = [i for i, name in enumerate(stream.prompt_ids) if name in heldout]
        values = stream.values.copy()
        values[:, :, rows] = rng.normal(size=values[:, :, rows].shape)
        pair.streams[key] = Stream(values, stream.prompt_ids)
    other = fit(pair)
    for name in FRAMES:
        for layer in (1, 3, 5):
            mine, theirs = fitted.named[name], other.named[name]
            np.testing.assert_array_equal(mine.bases[layer], theirs.bases[layer])
            assert not np.allclose(mine.shares["harmful", layer], theirs.shares["harmful", layer])
    assert other.directions == fitted.directions
    assert other.cosines == fitted.cosines
    for layer, centre in fitted.centres.items():
        np.testing.assert_array_equal(centre, other.centres[layer])


def test_frames_are_the_singular_vectors_of_their_matrices(fitted):
    pair, layer = make_pair(), 3
    rows = {
        (role, kind, name): pair.open(role, name, kind).read(
            layer, -1, [p.id for p in PROMPTS[name] if p.split == "fit"]
        )
        for role in ("base", "tuned")
        for kind in ("raw", "chat")
        for name in CONDITIONS
    }
    template, control = (
        rows["tuned", "chat", name] - rows["base", "chat", name].astype(float)
        for name in CONDITIONS
    )
    harmless = rows["tuned", "chat", "harmless"].astype(float)
    matrices = {
        "naive": rows["tuned", "chat", "harmful"] - rows["base", "raw", "harmful"].astype(float),
        "template": template,
        "did": template - control.mean(axis=0),
        "template_harmless": control,
        "activation": harmless - harmless.mean(axis=0),
    }
    for name, matrix in matrices.items():
        left = np.linalg.svd(matrix.T, full_matrices=False)[0][:, :3]
        basis = fitted.named[name].bases[layer][:, :3]
        np.testing.assert_allclose(np.abs((basis * left).sum(axis=0)), 1.0, atol=1e-6)
    np.testing.assert_allclose(fitted.centres[layer], harmless.mean(axis=0))


def test_random_frames_differ_by_layer_and_draw_and_not_by_how_many_are_drawn(fitted):
    more = fit(make_pair(), Ablation(ks=(1, 3, 8), directions=4))
    first = fitted.drawn[0].bases
    assert not np.allclose(np.abs(first[1].T @ first[2]), np.eye(8), atol=0.5)
    assert not np.allclose(first[1], fitted.drawn[1].bases[1])
    np.testing.assert_array_equal(first[3], more.drawn[0].bases[3])
    assert [frame.draw for frame in fitted.drawn] == [0, 1, 2]


def test_the_new_direction_is_what_the_base_does_not_have(fitted):
    for layer in (1, 4):
        base, new = (fitted.contrasts[name].bases[layer][:, 0] for name in ("base", "new"))
        assert base @ new == pytest.approx(0.0, abs=1e-9)
        assert fitted.cosines["tuned", layer] == pytest.approx(1.0)
        assert 0 <= fitted.cosines["new", layer] <= 1


def test_directions_carry_their_strength_and_stability(fitted):
    rows = [row for row in fitted.directions if row["layer"] == 2 and row["frame"] == "template"]
    assert [row["direction"] for row in rows] == [1, 2, 3, 4]
    values = [float(str(row["singular_value"])) for row in rows]
    assert values == sorted(values, reverse=True)
    # The planted mean dominates; the fourth direction is rank 3 + mean at most.
    assert float(str(rows[0]["share"])) > 0.5
    assert float(str(rows[0]["self_cosine"])) > 0.9
    assert {row["layer"] for row in fitted.directions} == {1, 2, 3, 4, 5}


def test_equal_prompts_on_both_sides_leave_no_direction():
    pair = make_pair()
    for role in ("base", "tuned"):
        for kind in ("raw", "chat"):
            same = pair.streams[role, "harmful", kind].values
            pair.streams[role, "harmless", kind].values = same
    with pytest.raises(UserError, match="harmful-harmless difference of layer 1 is zero"):
        fit(pair)
