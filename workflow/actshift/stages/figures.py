"""Stage figures: all tables of a run -> every figure of its studies as SVG and PNG."""

from collections.abc import Sequence
from pathlib import Path

from actshift.report.figures import FIGURES, draw_figure, figure_names
from actshift.report.style import save_figure
from actshift.report.tables import load_tables


def make_figures(tables: Path, out: Path, *, studies: Sequence[str]) -> list[Path]:
    """Draw every figure of some studies, whichever pairs finished.

    Args:
        tables: the run's `tables/` folder.
        out: the run's `figures/` folder; gets `<study>/<name>.svg` and `.png` for each name of
            `actshift.report.figures.figure_names(studies)`.
        studies: the studies that the run has on.

    Returns:
        The files written; a figure without rows says so inside.

    Raises:
        UserError: a table lacks a column.
    """
    found = load_tables(tables)
    written = []
    for name in figure_names(studies):
        written += save_figure(draw_figure(name, found), out / FIGURES[name].study, name)
        print(f"figure {name}")
    return written
