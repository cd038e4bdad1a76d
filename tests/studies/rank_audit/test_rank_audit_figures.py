"""Figures follow the settings that they are drawn with."""

import numpy as np
import pandas as pd
import pytest
from report.synthetic_tables import synthetic_tables

from actshift.stages.figures import draw_figure


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return synthetic_tables(("llama",))


@pytest.mark.parametrize(("eps", "label"), [(0.05, "95%"), (0.2, "80%"), (0.005, "99.5%")])
def test_the_line_is_the_first_k_that_leaves_out_eps(tables, eps: float, label: str) -> None:
    figure = draw_figure("cumulative_variance", tables, {"eps": eps})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"first k that holds {label}"]
    rows = tables["cumulative_variance"]
    rows = rows[(rows["matrix"] == "naive") & (rows["inputs"] == "harmful")]
    first = rows[rows["share"] >= 1 - eps].groupby("layer")["k"].min()
    (stairs,) = figure.axes[0].patches
    np.testing.assert_array_equal(stairs.get_data().values, first)
