"""Shared blocks: where the batch grows, and what ablations and patches leave in the stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hooks.test_lanes import make_prompts, open_decoder, same
from reference.tiny_models import FAMILIES

from actshift.edits import Ablate, Lane, Patch, Placed, Steer, everywhere
from actshift.hooks.lanes.edit import EditState, donor_places, edited, recorded
from actshift.hooks.lanes.fork import Fork, forked, shared_blocks
from actshift.hooks.lanes.generation import Decoder, generate_lanes, left_pad

WIDTH, LAYERS = 32, 3


def frame(k: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, k)))[0]


@pytest.mark.parametrize(
    ("lanes", "depth"),
    [
        ([Lane("plain")], 3),
        ([Lane("plain"), Lane("out", (Placed(Ablate(frame(1)), 1),))], 2),
        ([Lane("in", (Placed(Steer(np.ones(WIDTH)), 2, site="resid_pre"),))], 2),
        ([Lane("mlp", (Placed(Ablate(frame(1)), 1, site="mlp_out"),))], 1),
        ([everywhere("all", Ablate(frame(1)), n_layers=3)], 0),
        ([Lane("last", (Placed(Ablate(frame(1)), 2),))], 3),
    ],
)
def test_blocks_below_the_first_edit_are_shared(lanes, depth):
    assert shared_blocks(lanes, LAYERS) == depth


@contextmanager
def counted(decoder: Decoder, rows: list[list[int]]) -> Iterator[None]:
    """Note how many rows every block is called with."""
    handles = [
        block.register_forward_pre_hook(
            lambda _m, args, kwargs, seen=seen: seen.append(
                len(args[0] if args else kwargs["hidden_states"])
            ),
            with_kwargs=True,
        )
        for block, seen in zip(decoder.sites["resid_post"], rows, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_shared_blocks_run_once_a_prompt_and_lanes_run_above_them(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("qwen2"))
    lanes = [Lane(f"l{i}", (Placed(Ablate(frame(2, i)), 1),)) for i in range(5)]
    rows: list[list[int]] = [[] for _ in range(LAYERS)]
    with counted(decoder, rows):
        generate_lanes(decoder, make_prompts(4), lanes, max_new=4)
    assert [seen[0] for seen in rows] == [4, 4, 20]
    # Later, rows that have said other things are other groups.
    assert all(shared <= whole for shared, whole in zip(rows[0], rows[2], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_donor_runs_on_groups_and_its_patches_are_those_of_one_lane_alone(
    family, tiny_checkpoint
):
    receiver = open_decoder(tiny_checkpoint(family))
    donor = open_decoder(tiny_checkpoint(family, seed=1))
    prompts = make_prompts(5)
    lanes = [
        Lane("plain"),
        *(Lane(f"k{k}", tuple(Placed(Patch(1.0, frame(k)), at) for at in (1, 2))) for k in (1, 8)),
        Lane("half", (Placed(Patch(0.5), 1),)),
    ]
    rows: list[list[int]] = [[] for _ in range(LAYERS)]
    with counted(donor, rows):
        together = generate_lanes(receiver, prompts, lanes, max_new=6, donor=donor)
    assert rows[0][0] == rows[2][0] == 5
    for index, lane in enumerate(lanes):
        alone = generate_lanes(receiver, prompts, [lane], max_new=6, donor=donor)
        assert all(map(same, alone.answers[0], together.answers[index])), lane.name
        np.testing.assert_allclose(
            alone.first_logits[0], together.first_logits[index], rtol=1e-4, atol=1e-4
        )


def streams(
    receiver: Decoder, lanes: list[Lane], donor: Decoder | None = None
) -> dict[str, np.ndarray]:
    """Output of every block as the next one sees it, `[layer, prompt, token, d_model]` by lane."""
    prompts = [np.arange(5, 12), np.arange(8, 15)]
    ids, mask, position = left_pad(prompts, receiver)
    blocks = receiver.sites["resid_post"]
    fork = Fork(shared_blocks(lanes, len(blocks)))
    fork.set(torch.arange(2).repeat(len(lanes)), 2)
    state = EditState([(2 * i, 2 * i + 2) for i in range(len(lanes))], group=fork.group)
    options: dict[str, Any] = {"attention_mask": mask, "position_ids": position}
    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        if donor is not None:
            with recorded(donor.sites, donor_places(lanes), state.donor):
                donor.model(input_ids=ids, **options)
        with (
            forked(blocks, fork),
            edited(receiver.sites, lanes, state, dtype=receiver.dtype),
        ):
            handles = [
                block.register_forward_hook(
                    lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
                )
                for block in blocks
            ]
            receiver.model(input_ids=ids, **options)
            for handle in handles:
                handle.remove()
    grown = [fork.grow(out) if len(out) == 2 < 2 * len(lanes) else out for out in seen]
    stacked = torch.stack(grown).numpy()
    return {lane.name: stacked[:, 2 * i : 2 * i + 2] for i, lane in enumerate(lanes)}


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_leaves_nothing_in_the_span_and_mean_leaves_the_centre(family, tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint(family))
    basis, centre = frame(4), np.random.default_rng(1).standard_normal(WIDTH)
    lanes = [
        Lane("plain"),
        Lane("zero", tuple(Placed(Ablate(basis), at) for at in (1, 2))),
        Lane("mean", tuple(Placed(Ablate(basis, centre=centre), at) for at in (1, 2))),
    ]
    found = streams(decoder, lanes)
    scale = np.abs(found["plain"]).max()
    for layer in (1, 2):
        assert np.abs(found["zero"][layer] @ basis).max() < 1e-5 * scale
        rest = found["mean"][layer] @ basis - centre @ basis
        assert np.abs(rest).max() < 1e-5 * scale
    np.testing.assert_allclose(found["zero"][0], found["plain"][0], atol=1e-5 * scale)
    # What the edit does not span is as it was at the first edited layer.
    others = np.eye(WIDTH) - basis @ basis.T
    np.testing.assert_allclose(
        found["zero"][1] @ others, found["plain"][1] @ others, atol=1e-5 * scale
    )


def test_substitution_from_itself_is_plain_and_toggling_all_is_the_donor(tiny_checkpoint):
    receiver = open_decoder(tiny_checkpoint("llama"))
    itself = open_decoder(tiny_checkpoint("llama"))
    donor = open_decoder(tiny_checkpoint("llama", seed=1))
    whole = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0]
    lanes = [
        Lane("plain"),
        Lane("basis", tuple(Placed(Patch(1.0, whole), at) for at in (1, 2))),
        Lane("whole", tuple(Placed(Patch(), at) for at in (1, 2))),
    ]
    own = streams(receiver, lanes, itself)
    other = streams(donor, [Lane("plain")])["plain"]
    toggled = streams(receiver, lanes, donor)
    scale = np.abs(other).max()
    for name in ("basis", "whole"):
        np.testing.assert_allclose(own[name], own["plain"], atol=1e-5 * scale)
        np.testing.assert_allclose(toggled[name][1:], other[1:], atol=1e-5 * scale)
        assert np.abs(toggled[name][1] - toggled["plain"][1]).max() > 0.1 * scale
    said = generate_lanes(receiver, make_prompts(5), lanes, max_new=6, donor=itself).answers
    assert all(map(same, said[0], said[1]))
    assert all(map(same, said[0], said[2]))


def test_no_hook_outlives_an_exception(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("qwen2"))
    blocks = decoder.sites["resid_post"]
    with pytest.raises(RuntimeError, match="stop"):  # noqa: PT012
        with forked(blocks, Fork(1)):
            assert sum(len(block._forward_pre_hooks) for block in blocks) == 2
            raise RuntimeError("stop")
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in blocks)
