"""Stacked edits of many lanes against the same arithmetic, one lane and one edit at a time."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.edits import apply_edit

from actshift.edits import Ablate, Edit, Patch, Placed, Steer
from actshift.hooks.lanes.edit import stack_edits

WIDTH, TOKENS = 6, 3


def some_edit(rng: np.random.Generator, kind: int) -> Edit:
    k = int(rng.integers(1, 4))
    basis = np.linalg.qr(rng.standard_normal((WIDTH, k)))[0]
    vector = rng.standard_normal(WIDTH)
    return [
        Ablate(basis),
        Ablate(basis, centre=vector),
        Steer(vector, float(rng.normal())),
        Patch(float(rng.uniform())),
        Patch(0.7, basis),
    ][kind]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=7,
    ),
)
def test_stacks_do_to_every_lane_what_its_edits_do_in_order(seed, plan):
    rng = np.random.default_rng(seed)
    edits = [[some_edit(rng, kind) for kind in kinds] for _, kinds in plan]
    stops = np.cumsum([rows for rows, _ in plan]).tolist()
    bounds = list(zip([0, *stops[:-1]], stops, strict=True))
    hidden, donor = rng.standard_normal((2, stops[-1], TOKENS, WIDTH))
    wanted = hidden.copy()
    for (start, stop), own in zip(bounds, edits, strict=True):
        for edit in own:
            wanted[start:stop] = apply_edit(edit, wanted[start:stop], donor[start:stop])
    placed = [(lane, Placed(edit, 0)) for lane, own in enumerate(edits) for edit in own]
    out = torch.from_numpy(hidden.copy())
    for stack in stack_edits(placed, torch.device("cpu"), torch.float64):
        rows = stack.rows(bounds)
        if rows is not None:
            part = rows.take(torch.from_numpy(donor)) if stack.reads_donor else None
            rows.put(out, stack.apply(rows.take(out), part))
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-10, atol=1e-10)


def test_edits_of_one_shape_are_one_stack():
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((WIDTH, k)))[0] for k in (1, 2, 1, 2, 1)]
    placed = [(lane, Placed(Ablate(basis), 0)) for lane, basis in enumerate(bases)]
    stacks = stack_edits(placed, torch.device("cpu"), torch.float32)
    assert [stack.lanes for stack in stacks] == [(0, 2, 4), (1, 3)]


def test_rows_are_laid_out_again_when_lanes_lose_rows():
    placed = [(lane, Placed(Steer(np.ones(WIDTH)), 0)) for lane in range(2)]
    (stack,) = stack_edits(placed, torch.device("cpu"), torch.float32)
    full, fewer = [(0, 2), (2, 4)], [(0, 0), (0, 1)]
    whole = stack.rows(full)
    assert whole is not None
    assert whole.real is None
    assert stack.rows(full) is whole
    less = stack.rows(fewer)
    assert less is not None
    assert less.real is not None
    assert less.real.tolist() == [[False], [True]]
    assert stack.rows([(0, 0), (0, 0)]) is None


def test_a_donor_in_groups_is_read_by_the_group_of_each_row():
    (stack,) = stack_edits([(0, Placed(Patch(), 0))], torch.device("cpu"), torch.float32)
    rows = stack.rows([(0, 3)])
    assert rows is not None
    donor = torch.arange(2.0).view(2, 1, 1).expand(2, TOKENS, WIDTH).contiguous()
    out = torch.zeros(3, TOKENS, WIDTH)
    taken = rows.take(donor, torch.tensor([1, 0, 1]))
    rows.put(out, stack.apply(rows.take(out), taken))
    assert out[:, 0, 0].tolist() == [1.0, 0.0, 1.0]
