"""Figure of the norm of the shift."""

import pandas as pd
from matplotlib.figure import Figure

from actshift.report.panels import from_zero, pair_tiles, pairs_of, whole_layers
from actshift.report.style import BLUE
from actshift.report.tables import select


def example_norm(norms: pd.DataFrame) -> Figure:
    """Norm of the shift by layer, with its interval."""
    pairs = pairs_of(norms)
    figure, axes = pair_tiles(pairs, ylabel="norm of the shift", xlabel="layer (block output)")
    for axis, pair in zip(axes, pairs, strict=True):
        rows = select(norms, pair=pair)
        axis.fill_between(rows["layer"], rows["norm_low"], rows["norm_high"], color=BLUE, alpha=0.2)
        axis.plot(rows["layer"], rows["norm"], color=BLUE, marker="o")
        whole_layers(axis)
    from_zero(axes)
    return figure
