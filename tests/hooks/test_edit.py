"""Edits inside a forward pass, against the same arithmetic on plain arrays."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.edits import apply_edit
from torch import nn

from actshift.edits import Ablate, Edit, Lane, Patch, Placed, Steer, everywhere
from actshift.hooks.lanes.edit import EditState, edited

WIDTH, ROWS, TOKENS = 6, 5, 4


class Block(nn.Module):
    """Doubles its input; a tuple where asked to, hidden states as a keyword where asked to."""

    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.as_tuple = as_tuple

    def forward(self, hidden_states: torch.Tensor) -> Any:
        out = 2 * hidden_states
        return (out, "kept") if self.as_tuple else out


def hooks_of(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def run(
    edits: list[Placed],
    hidden: torch.Tensor,
    *,
    as_tuple: bool = False,
    prefill: bool = True,
    donor: torch.Tensor | None = None,
) -> torch.Tensor:
    """One block, two lanes: rows 0-1 are plain, rows 2-4 are edited."""
    block = Block(as_tuple)
    lanes = [Lane("plain"), Lane("edited", tuple(edits))]
    state = EditState([(0, 2), (2, ROWS)], prefill=prefill)
    if donor is not None:
        state.donor["resid_post", 0] = donor
    sites = {"resid_pre": [block], "attn_out": [], "mlp_out": [], "resid_post": [block]}
    with edited(sites, lanes, state, dtype=hidden.dtype):
        out = block(hidden)
    assert hooks_of(block) == 0
    if as_tuple:
        assert out[1] == "kept"
        return out[0]
    return out


def frame(rng: np.random.Generator, k: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((WIDTH, k)))[0]


def some_edits(rng: np.random.Generator) -> list[Edit]:
    vector = rng.standard_normal(WIDTH)
    return [
        Ablate(frame(rng, 2)),
        Ablate(frame(rng, 1), centre=vector),
        Steer(vector, coeff=-1.5),
        Patch(alpha=0.3),
        Patch(alpha=1.0, basis=frame(rng, 3)),
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), which=st.integers(0, 4), as_tuple=st.booleans())
def test_an_edit_is_its_arithmetic_on_its_own_rows_only(seed: int, which: int, as_tuple: bool):
    rng = np.random.default_rng(seed)
    edit = some_edits(rng)[which]
    hidden, donor = (torch.from_numpy(rng.standard_normal((ROWS, TOKENS, WIDTH))) for _ in "ab")
    out = run([Placed(edit, 0)], hidden, as_tuple=as_tuple, donor=donor)
    wanted = apply_edit(edit, 2 * hidden[2:].numpy(), donor[2:].numpy())
    np.testing.assert_array_equal(out[:2], 2 * hidden[:2])
    np.testing.assert_allclose(out[2:], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("positions", "prefill", "columns"),
    [
        ("all", True, [0, 1, 2, 3]),
        ("prompt", True, [0, 1, 2, 3]),
        ("last_prompt", True, [3]),
        ("all", False, [0, 1, 2, 3]),
        ("prompt", False, []),
        ("last_prompt", False, []),
    ],
)
def test_positions_choose_the_tokens(positions, prefill, columns):
    hidden = torch.zeros(ROWS, TOKENS, WIDTH)
    place = Placed(Steer(np.ones(WIDTH)), 0, positions=positions)
    out = run([place], hidden, prefill=prefill)
    changed = torch.nonzero(out[2:].abs().sum((0, 2))).flatten().tolist()
    assert changed == columns


def test_edits_before_a_block_pass_through_it():
    hidden = torch.zeros(ROWS, TOKENS, WIDTH)
    out = run([Placed(Steer(np.ones(WIDTH)), 0, site="resid_pre")], hidden)
    assert torch.equal(out[2:], torch.full((3, TOKENS, WIDTH), 2.0))


def test_edits_at_one_place_act_in_the_order_of_the_lane():
    axis = np.eye(WIDTH)[:, :1]
    hidden = torch.ones(ROWS, TOKENS, WIDTH)
    add, remove = Placed(Steer(np.ones(WIDTH)), 0), Placed(Ablate(axis), 0)
    assert float(run([add, remove], hidden)[2, 0, 0]) == 0.0
    assert float(run([remove, add], hidden)[2, 0, 0]) == 1.0


def test_ablating_twice_changes_nothing_and_leaves_no_projection():
    rng = np.random.default_rng(0)
    basis = frame(rng, 3)
    hidden = torch.from_numpy(rng.standard_normal((ROWS, TOKENS, WIDTH)))
    once = run([Placed(Ablate(basis), 0)], hidden)
    twice = run([Placed(Ablate(basis), 0)] * 2, hidden)
    np.testing.assert_allclose(once[2:].numpy() @ basis, 0.0, atol=1e-14)
    np.testing.assert_allclose(twice, once, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_stream_is_kept_and_the_input_is_not_written_to(dtype):
    rng = np.random.default_rng(1)
    basis = frame(rng, 1)
    hidden = torch.from_numpy(rng.standard_normal((ROWS, TOKENS, WIDTH))).to(dtype)
    before = hidden.clone()
    out = run([Placed(Ablate(basis), 0)], hidden)
    assert out.dtype == dtype
    assert torch.equal(hidden, before)
    # What is left is the rounding of the result, not of the projection.
    rest = np.abs(out[2:].double().numpy() @ basis).max()
    assert rest < 4 * torch.finfo(dtype).eps * float(hidden.abs().max())


def test_hooks_are_gone_after_an_exception():
    block = Block(as_tuple=False)
    sites = {"resid_pre": [block], "attn_out": [], "mlp_out": [], "resid_post": [block]}
    lane = Lane("x", (Placed(Steer(np.ones(WIDTH)), 0),))
    with pytest.raises(RuntimeError, match="stop"):  # noqa: PT012
        with edited(sites, [lane], EditState([(0, 1)]), dtype=torch.float32):
            assert hooks_of(block) == 1
            raise RuntimeError("stop")
    assert hooks_of(block) == 0


def test_hooks_are_gone_after_a_lane_that_names_no_layer():
    block = Block(as_tuple=False)
    sites = {"resid_pre": [block], "attn_out": [], "mlp_out": [], "resid_post": [block]}
    steer = Steer(np.ones(WIDTH))
    lanes = [Lane("good", (Placed(steer, 0),)), Lane("deep", (Placed(steer, 7),))]
    with pytest.raises(ValueError, match="lane deep: layer 7 of 1"):
        with edited(sites, lanes, EditState([(0, 1), (1, 2)]), dtype=torch.float32):
            pass
    assert hooks_of(block) == 0


def test_everywhere_touches_every_write_once():
    lane = everywhere("r", Ablate(np.eye(WIDTH)[:, :1]), n_layers=3)
    places = [(placed.site, placed.layer) for placed in lane.edits]
    assert len(places) == len(set(places)) == 7
    assert ("resid_pre", 0) in places
    assert not lane.needs_donor
    assert Lane("p", (Placed(Patch(), 0),)).needs_donor
