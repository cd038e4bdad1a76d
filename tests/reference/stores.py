"""Small stores written with the real writer, from values made up by a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from actshift.io.layout import Layout
from actshift.io.writer import StoreRows, StoreWriter


def rows_like(values: np.ndarray) -> StoreRows:
    """Rows for values `[layer, position, prompt, d_model]`: prompts p0, p1 ..., all valid."""
    _, positions, prompts, _ = values.shape
    shape = (positions, prompts)
    return StoreRows(
        prompt_ids=[f"p{i}" for i in range(prompts)],
        n_tokens=np.full(prompts, positions),
        valid=np.ones(shape, bool),
        token_id=np.zeros(shape, int),
        is_special=np.zeros(shape, bool),
        token_index=np.zeros(shape, int),
        batch=np.zeros(prompts, int),
        batch_row=np.arange(prompts),
    )


def write_store(
    folder: Path,
    layout: Layout,
    values: np.ndarray,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    order: Sequence[int] | None = None,
) -> Path:
    """Write a whole store; the final norm repeats the last layer."""
    writer = StoreWriter(folder, layout, rows_like(values), attrs={"seed": 0}, dtype=dtype)
    for window in writer.missing() if order is None else order:
        start, stop = layout.span(window)
        block = values[:, :, start:stop]
        writer.write(window, resid_post=block, final_norm=block[-1], model="m")
    writer.finish({"key": "k"})
    return folder
