"""Stage figures: all pairs' tables -> every figure of the rank audit as SVG and PNG."""

from pathlib import Path

from actshift.report.figures import draw_figure, figure_names
from actshift.report.style import save_figure
from actshift.report.tables import load_tables


def make_figures(tables: Path, out: Path) -> list[Path]:
    """Draw every figure, whichever pairs finished.

    Args:
        tables: the run's `tables/` folder.
        out: folder of the figures; gets `<name>.svg` and `<name>.png` for each name of
            `actshift.report.figures.figure_names()`.

    Returns:
        The files written; a figure without rows says so inside.

    Raises:
        UserError: a table lacks a column.
    """
    found = load_tables(tables)
    written = []
    for name in figure_names():
        written += save_figure(draw_figure(name, found), out, name)
        print(f"figure {name}")
    return written
