"""How an activation store is cut into windows, shards and chunks, from its sizes alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from actshift.packing import in_budget

#: A chunk holds about this many bytes where the stream is that large.
CHUNK_BYTES = 2**20
#: One window of all layers stays below this.
WINDOW_BYTES = 256 * 2**20
#: Windows of more prompts than this gain little from sorting and lose more on a kill.
WINDOW_PROMPTS = 512
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a store `[layer, position, prompt, d_model]` and how its prompt axis is cut."""

    layers: int
    positions: int
    prompts: int
    d_model: int
    chunk: int
    """Prompts a chunk."""
    window: int
    """Prompts a window: the unit of buffer, shard, resume and scatter; a multiple of `chunk`."""

    @property
    def windows(self) -> int:
        """Number of windows; the last one may be shorter."""
        return -(-self.prompts // self.window)

    def span(self, window: int) -> tuple[int, int]:
        """Return the first prompt of a window and the one past its last."""
        start = window * self.window
        return start, min(start + self.window, self.prompts)


def plan_layout(*, layers: int, positions: int, prompts: int, d_model: int) -> Layout:
    """Choose chunk C and window W from (L, P, n, d) only, so that equal data give equal files.

    C is near 1 MiB / (4 P d); W holds whole chunks, at most 256 MiB and max(C, 512) prompts, and
    is balanced: 130 prompts with room for 64 give three windows of 44, not 64 + 64 + 2.

    Args:
        layers: L, number of decoder blocks.
        positions: P, stored positions a prompt.
        prompts: n, number of prompts, at least one.
        d_model: d, width of the residual stream.

    Returns:
        The layout; `window` is a multiple of `chunk`.
    """
    row = positions * d_model * _FLOAT32
    near = max(1, CHUNK_BYTES // row)
    most = max(1, min(WINDOW_BYTES // (layers * row), max(near, WINDOW_PROMPTS)))
    windows = -(-prompts // most)
    while True:
        window = -(-prompts // windows)
        chunks = max(1, round(window / near))
        chunk = -(-window // chunks)
        if chunk * chunks <= most:
            return Layout(layers, positions, prompts, d_model, chunk, chunk * chunks)
        windows += 1


def plan_batches(
    n_tokens: Int[np.ndarray, " prompt"], layout: Layout, *, token_budget: int
) -> list[list[Int[np.ndarray, " _"]]]:
    """Cut every window into batches of similar length, at most `token_budget` padded tokens each.

    Batches never cross windows, so that a resumed run repeats the batches of an unbroken one: in
    bf16 the same prompt differs by about 1 % from batch to batch. A batch has at most
    `token_budget` rows x longest prompt; a longer prompt runs alone. Returns for each window its
    batches, each the prompt rows it holds, shortest prompt first.
    """
    plan: list[list[np.ndarray]] = []
    for window in range(layout.windows):
        start, stop = layout.span(window)
        batches = in_budget(n_tokens[start:stop].tolist(), budget=token_budget)
        plan.append([start + np.array(batch) for batch in batches])
    return plan
