"""All figures by name, and how one is drawn from whatever tables there are.

Every figure holds all pairs, so the names do not depend on the pairs and a Snakefile can declare
them. A figure whose table is missing says so: one failed pair costs no output.
"""

from collections.abc import Collection

from matplotlib.figure import Figure

from actshift.report.catalogue import TABLES
from actshift.report.panels import empty_figure
from actshift.report.spec import STUDIES, FigureSpec
from actshift.report.style import print_style
from actshift.report.tables import Tables
from actshift.studies.ablation.specs import CAUSAL
from actshift.studies.localization.figures.specs import LOCALIZATION
from actshift.studies.misalignment.figures.specs import MISALIGNMENT
from actshift.studies.rank_audit.figures import AUDIT

FIGURES: dict[str, FigureSpec] = {**AUDIT, **CAUSAL, **LOCALIZATION, **MISALIGNMENT}

#: What the panels of a figure stand for, by the column that names them.
_SHOWN = ("pair", "model", "variant", "receiver")


def figure_names(studies: Collection[str] = tuple(STUDIES)) -> tuple[str, ...]:
    """Names of the figures of some studies (all unless told), in the order of the page."""
    return tuple(name for name, spec in FIGURES.items() if spec.study in studies)


def draw_figure(name: str, tables: Tables) -> Figure:
    """Draw one figure from the tables, or say inside it what is missing.

    Args:
        name: one of `figure_names()`.
        tables: table name -> rows.

    Returns:
        The figure; the same tables give the same bytes when saved.
    """
    spec = FIGURES[name]
    with print_style():
        missing = _missing(spec, tables)
        if missing:
            return empty_figure(f"no rows in {_file(missing[0])}: no job got this far")
        return spec.draw(*(tables.get(table) for table in (*spec.tables, *spec.beside)))


def _missing(spec: FigureSpec, tables: Tables) -> list[str]:
    """Needed tables that have no rows."""
    return [table for table in spec.tables if table not in tables or tables[table].empty]


def caption(name: str, tables: Tables) -> str:
    """What is seen, where the tables say it, and the caption."""
    spec = FIGURES[name]
    found = "" if spec.seen is None or _missing(spec, tables) else spec.seen(tables)
    return f"{found} {spec.caption}".lstrip()


def _file(table: str) -> str:
    """The file of a table, without its folder."""
    return f"{TABLES[table].file}.csv"


def alt_text(name: str, tables: Tables) -> str:
    """What the figure shows, for a reader who cannot see it."""
    spec = FIGURES[name]
    missing = _missing(spec, tables)
    if missing:
        return f"Empty figure: {_file(missing[0])} has no rows."
    table = tables[spec.tables[0]]
    who = next(column for column in _SHOWN if column in table)
    names = ", ".join(dict.fromkeys(str(value) for value in table[who]))
    first = spec.caption.split(". ")[0].rstrip(".")
    where = ", ".join(_file(table) for table in spec.tables)
    return f"{spec.title} {first}. Shown for {names}. Values: {where}."
