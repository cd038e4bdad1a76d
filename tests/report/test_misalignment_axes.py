"""Panels of a column share x: a pair of another scale must not push the others out of sight."""

import numpy as np
import pytest
from report.synthetic_misalignment import misalignment_tables

from actshift.stages.figures import draw_figure

#: Figure -> table and columns that are of another scale in one pair.
SCALES = {
    "steering_equal_kl": ("steering", ["kl_first", "scale"]),
    "steering_content": ("content", ["dose_ratio"]),
}


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("name", list(SCALES))
def test_a_pair_of_another_scale_hides_nothing(name: str, which: int) -> None:
    tables = misalignment_tables()
    source, columns = SCALES[name]
    table = tables[source].copy()
    pair = list(table["pair"].unique())[which]
    table.loc[table["pair"] == pair, columns] *= 9.0
    figure = draw_figure(name, {**tables, source: table})
    drawn = [axis for axis in figure.axes if axis.lines]
    assert len(drawn) >= 6
    for axis in drawn:
        low, high = axis.get_xlim()
        dots = [line for line in axis.lines if line.get_marker() not in ("None", "", None)]
        places = np.concatenate([np.asarray(line.get_xdata(), float) for line in dots])
        places = places[np.isfinite(places)]
        assert low <= places.min()
        assert places.max() <= high
