"""Streams of a synthetic pair as stores on disk."""

from pathlib import Path

import numpy as np
from reference.synthetic_pair import Stream

from actshift.io.layout import plan_layout
from actshift.io.writer import StoreRows, StoreWriter


def write_stream(stream: Stream, folder: Path) -> Path:
    """Write one in-memory stream as a store."""
    layers, positions, prompts, width = stream.values.shape
    present = stream.present
    rows = StoreRows(
        prompt_ids=stream.prompt_ids,
        n_tokens=np.full(prompts, 9),
        valid=present,
        token_id=np.where(present, 7, -1),
        is_special=np.zeros_like(present),
        token_index=np.where(present, 0, -1),
        batch=np.zeros(prompts, dtype=int),
        batch_row=np.arange(prompts),
    )
    layout = plan_layout(layers=layers, positions=positions, prompts=prompts, d_model=width)
    writer = StoreWriter(folder, layout, rows, attrs={"model": "m"})
    for window in writer.missing():
        start, stop = layout.span(window)
        block = stream.values[:, :, start:stop]
        writer.write(window, resid_post=block, final_norm=block[-1], model="m")
    writer.finish({"key": "k"})
    return folder
