"""Stage calibration_figures: the calibration tables -> every figure as SVG and PNG."""

from pathlib import Path

from actshift.io.tables import read_table
from actshift.report.calibration_figures import FIGURES, draw_calibration_figure, table_names
from actshift.report.style import save_figure


def make_calibration_figures(tables: Path, out: Path) -> list[Path]:
    """Draw every figure of the study.

    Args:
        tables: The run's `tables/calibration` folder.
        out: Folder of the figures.

    Returns:
        The files written.

    Raises:
        UserError: A table is missing.
    """
    found = {name: read_table(tables / f"{name}.csv") for name in sorted(table_names())}
    return [
        path
        for name in FIGURES
        for path in save_figure(draw_calibration_figure(name, found), out, name)
    ]
