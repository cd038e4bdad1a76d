"""Stage figures: all tables of a run -> every figure of its studies as SVG and PNG."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from actshift.report.style import save_figure
from actshift.report.tables import load_tables
from actshift.stages.figures_of_run import FIGURES, draw_figure, figure_names


def make_figures(
    tables: Path, out: Path, *, studies: Sequence[str], processes: int = 1
) -> list[Path]:
    """Draw every figure of some studies, whichever pairs finished.

    Args:
        tables: the run's `tables/` folder.
        out: the run's `figures/` folder; gets `<study>/<name>.svg` and `.png` for each name of
            `actshift.stages.figures_of_run.figure_names(studies)`.
        studies: the studies that the run has on.
        processes: how many draw side by side; the bytes do not depend on it.

    Returns:
        The files written; a figure without rows says so inside.

    Raises:
        UserError: a table lacks a column.
    """
    names = figure_names(studies)
    draw = partial(_draw, tables, out)
    if processes == 1:
        return draw(names)
    # Dealt out like cards: figures of one study are alike in cost.
    hands = [hand for first in range(processes) if (hand := names[first::processes])]
    # Forked: the drawing library need not be loaded again.
    with ProcessPoolExecutor(len(hands), mp_context=get_context("fork")) as pool:
        return [file for files in pool.map(draw, hands) for file in files]


def _draw(tables: Path, out: Path, names: Sequence[str]) -> list[Path]:
    found = load_tables(tables)
    written = []
    for name in names:
        written += save_figure(draw_figure(name, found), out / FIGURES[name].study, name)
        print(f"figure {name}")
    return written
