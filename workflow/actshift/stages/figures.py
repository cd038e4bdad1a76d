"""Stage figures: all tables of a run -> every figure of its studies as SVG and PNG.

Every figure holds all pairs, so the names do not depend on the pairs and a Snakefile can declare
them. A figure whose table is missing says so: one failed pair costs no output.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from actshift.report.panels import empty_figure
from actshift.report.style import print_style, save_figure
from actshift.report.tables import Tables, load_tables
from actshift.studies.contract import Figure, named
from actshift.studies.registry import CATALOGUE

_STUDIES = Path(__file__).resolve().parents[1] / "studies"
#: What the panels of a figure stand for, by the column that names them.
_SHOWN = ("pair", "model", "variant", "receiver")


def draw_figure(name: str, tables: Tables, settings: Mapping[str, Any] | None = None) -> Drawing:
    """Draw one figure from the tables, or say inside it what is missing.

    `settings` is what the figure takes from the settings of its study. The same tables give the
    same bytes when saved.
    """
    figure = CATALOGUE.figures[name]
    with print_style():
        missing = _missing(figure, tables)
        if missing:
            return empty_figure(f"no rows in {_file(missing[0])}: no job got this far")
        drawn = (tables.get(table) for table in (*figure.tables, *figure.beside))
        return named(figure.draw)(*drawn, **(settings or {}))


def title(name: str) -> str:
    """The title of a figure: a question or a name."""
    return _caption(name)[0]


def caption(name: str, tables: Tables) -> str:
    """What is seen, where the tables say it, and the caption."""
    figure = CATALOGUE.figures[name]
    seen = named(figure.seen)(name, tables) if figure.seen and not _missing(figure, tables) else ""
    return f"{seen} {_caption(name)[1]}".lstrip()


def alt_text(name: str, tables: Tables) -> str:
    """What the figure shows, for a reader who cannot see it."""
    figure = CATALOGUE.figures[name]
    missing = _missing(figure, tables)
    if missing:
        return f"Empty figure: {_file(missing[0])} has no rows."
    table = tables[figure.tables[0]]
    who = next(column for column in _SHOWN if column in table)
    names = ", ".join(dict.fromkeys(str(value) for value in table[who]))
    first = _caption(name)[1].split(". ")[0].rstrip(".")
    where = ", ".join(_file(table) for table in figure.tables)
    return f"{title(name)} {first}. Shown for {names}. Values: {where}."


def caption_file(name: str) -> Path:
    """The file that holds the title and the caption of a figure."""
    return _STUDIES / CATALOGUE.figure_studies[name] / "captions" / f"{name}.rst"


@cache
def _caption(name: str) -> tuple[str, str]:
    """Title and caption of a figure, as `snakemake --report` reads them too."""
    head, _, body = caption_file(name).read_text(encoding="utf-8").partition("\n\n")
    return head.strip().strip("*"), " ".join(body.split())


def _missing(figure: Figure, tables: Tables) -> list[str]:
    """Needed tables that have no rows."""
    return [table for table in figure.tables if table not in tables or tables[table].empty]


def _file(table: str) -> str:
    """The file of a table, without its folder."""
    return f"{CATALOGUE.tables[table].stem}.csv"


def make_figures(
    tables: Path,
    out: Path,
    *,
    studies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    processes: int = 1,
) -> list[Path]:
    """Draw every figure of some studies, whichever pairs finished, and return the files written.

    `out` is the run's `figures/` folder and gets `<study>/<name>.svg` and `.png`. `settings` holds
    what each figure takes from the settings of its study, by name of the figure. The bytes do not
    depend on how many `processes` draw side by side.

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
