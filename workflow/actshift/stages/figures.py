"""Stage figures: all tables of a run -> every figure of its studies as SVG and PNG."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from actshift.report.style import save_figure
from actshift.report.tables import load_tables
from actshift.stages.drawing import draw_figure
from actshift.studies.registry import CATALOGUE


def make_figures(
    tables: Path,
    out: Path,
    *,
    studies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    processes: int = 1,
) -> list[Path]:
    """Draw every figure of some studies, whichever pairs finished.

    Args:
        tables: the run's `tables/` folder.
        out: the run's `figures/` folder; gets `<study>/<name>.svg` and `.png` for each name of
            `CATALOGUE.names(studies)`.
        studies: the studies that the run has on.
        settings: what each figure takes from the settings of its study, by name of the figure.
        processes: how many draw side by side; the bytes do not depend on it.

    Returns:
        The files written; a figure without rows says so inside.

    Raises:
        UserError: a table lacks a column.
    """
    names = CATALOGUE.names(studies)
    draw = partial(_draw, tables, out, settings or {})
    if processes == 1:
        return draw(names)
    # Dealt out like cards: figures of one study are alike in cost.
    hands = [hand for first in range(processes) if (hand := names[first::processes])]
    # Forked: the drawing library need not be loaded again.
    with ProcessPoolExecutor(len(hands), mp_context=get_context("fork")) as pool:
        return [file for files in pool.map(draw, hands) for file in files]


def _draw(
    tables: Path, out: Path, settings: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> list[Path]:
    loaded = load_tables(tables, CATALOGUE)
    written = []
    for name in names:
        written += save_figure(
            draw_figure(name, loaded, settings.get(name)),
            out / CATALOGUE.figure_studies[name],
            name,
        )
        print(f"figure {name}")
    return written
