"""Bands of layers that the effective-rank audit averages over."""

import numpy as np

#: Bands as (low, high, count) of the depth: the ones the released code used.
RELEASED_BANDS = {"narrow": (0.45, 0.70, 5), "wide": (0.30, 0.85, 8)}
#: Bands printed in the paper's eps table, by depth (32: Llama-3.1-8B, 42: Gemma-2-9B). They are
#: not the released ones; the Qwen band of that table is not known.
PRINTED_BANDS = {32: (14, 15, 17, 19, 22), 42: (19, 22, 25, 27, 29)}


def band_layers(depth: int) -> dict[str, tuple[int, ...]]:
    """Layers of each band of a model with `depth` blocks, repeated layers dropped.

    Formula: linspace(int(low * depth), int(high * depth), count), truncated to int. A shallow
    model repeats layers (6 blocks, narrow: 2 2 3 3 4); each counts once here.

    Args:
        depth: Number of decoder blocks.

    Returns:
        Band name to rising layer indices; `printed` only for the depths of the paper's table.

    Source: arXiv 2605.24583 released code; the printed bands from its eps table.
    """
    bands: dict[str, tuple[int, ...]] = {}
    for name, (low, high, count) in RELEASED_BANDS.items():
        points = np.linspace(int(low * depth), int(high * depth), count).astype(int)
        bands[name] = tuple(int(layer) for layer in np.unique(points))
    if depth in PRINTED_BANDS:
        bands["printed"] = PRINTED_BANDS[depth]
    return bands
