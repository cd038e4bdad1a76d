"""What a figure holds, read back from its axes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.stages.figures import caption_file


def points(axis: Axes) -> set[tuple[float, float]]:
    """Every point of an axis' lines."""
    pairs = [np.asarray(line.get_xydata(), dtype=float) for line in axis.lines]
    return {(round(float(x), 6), round(float(y), 6)) for xy in pairs for x, y in xy}


def along(axis: Axes) -> set[float]:
    """All x values of an axis' lines."""
    return {x for x, _ in points(axis)}


def heights(axis: Axes) -> set[float]:
    return {y for _, y in points(axis)}


def rounded(values: pd.Series) -> set[float]:
    return {round(float(value), 6) for value in values}


def shaded(axis: Axes) -> np.ndarray:
    """The y values of the first filled band."""
    return np.asarray(axis.collections[0].get_paths()[0].vertices, dtype=float)[:, 1]


def rows_of(axis: Axes) -> list[str]:
    return [tick.get_text() for tick in axis.get_yticklabels()]


def panels(figure: Figure) -> list[Axes]:
    """Panels, without colour bars."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def plain_caption(name: str) -> str:
    """The caption of a figure as its file holds it, without what the tables show."""
    _, _, text = caption_file(name).read_text(encoding="utf-8").partition("\n\n")
    return " ".join(text.split())
