import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.io.layout import CHUNK_BYTES, WINDOW_BYTES, plan_batches, plan_layout

sizes = st.builds(
    dict,
    layers=st.integers(1, 90),
    positions=st.integers(1, 20),
    prompts=st.integers(1, 6000),
    d_model=st.sampled_from([8, 64, 512, 2304, 4096, 8192]),
)


@given(sizes)
def test_windows_cover_the_prompts_in_whole_chunks_within_the_budget(size):
    layout = plan_layout(**size)
    row = 4 * size["positions"] * size["d_model"]
    spans = [layout.span(window) for window in range(layout.windows)]
    assert [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), size["prompts"]]
    assert layout.window % layout.chunk == 0
    # A single prompt of a huge stream may by itself exceed the budget.
    assert layout.window == 1 or layout.window * row * size["layers"] <= WINDOW_BYTES
    assert layout.chunk * row <= 2 * CHUNK_BYTES or layout.chunk == 1


@given(sizes)
def test_the_last_window_is_not_mostly_fill(size):
    layout = plan_layout(**size)
    start, stop = layout.span(layout.windows - 1)
    chunks = layout.window // layout.chunk
    assert layout.window - (stop - start) < layout.windows * (chunks + 1)


@pytest.mark.parametrize(
    ("size", "chunk", "window"),
    [
        # The tiny zoo: one chunk a layer, one window.
        ({"layers": 6, "positions": 1, "prompts": 600, "d_model": 64}, 600, 600),
        # RECIPES: 16 layers of 2048, chunks of about 1 MiB.
        ({"layers": 16, "positions": 1, "prompts": 1000, "d_model": 2048}, 125, 500),
        # 70 B: the 256 MiB buffer decides, and windows are balanced.
        ({"layers": 80, "positions": 1, "prompts": 500, "d_model": 8192}, 34, 102),
    ],
)
def test_known_layouts(size, chunk, window):
    layout = plan_layout(**size)
    assert (layout.chunk, layout.window) == (chunk, window)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 200))
def test_batches_hold_every_prompt_once_within_budget_and_window(lengths, budget):
    n_tokens = np.array(lengths)
    layout = plan_layout(layers=80, positions=4, prompts=len(lengths), d_model=8192)
    plan = plan_batches(n_tokens, layout, token_budget=budget)
    for window, batches in enumerate(plan):
        start, stop = layout.span(window)
        assert sorted(np.concatenate(batches).tolist()) == list(range(start, stop))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * n_tokens[batch].max() <= budget
        longest = [int(n_tokens[batch].max()) for batch in batches]
        assert longest == sorted(longest)
