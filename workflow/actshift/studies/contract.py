"""What a study is made of, as data: its settings, tables, figures and answers.

A study is a folder `studies/<study>/`, a rules file, a line in `studies/registry.py`, its tests and
its page of docs. Everything that lists studies, tables or figures is composed from this.
Standard library and pydantic only: the Snakefile imports it. Functions are named as strings, so
that naming them loads nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from actshift.validation import Section

#: Meanings that are the same in every table; a table may say otherwise.
COMMON: dict[str, tuple[str, str]] = {
    "pair": ("", "pair of models, as the configuration calls it"),
    "layer": ("", "decoder block, counted from 0"),
    "n": ("prompts", "number of prompts (or preference pairs) behind the row"),
    "clusters": ("", "number of clusters they belong to"),
    "d": ("", "width of the residual stream"),
    "draws": ("", "number of random draws"),
    "status": ("", "ok, or why the row decides nothing"),
    "why": ("", "the reason, where the status is not ok"),
    "seed": ("", "seed of the random draws"),
    "split": ("", "split of the prompts: fit, select or heldout"),
    "p": ("", "p-value"),
    "p_holm": ("", "p-value after Holm's correction"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its name, its unit (empty for names, counts, shares), its meaning."""

    name: str
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One joint table of a run.

    Attributes:
        name: unique over all studies.
        row: what one row stands for, such as "a pair, matrix and layer".
        columns: in the order of the CSV file.
        file: name of the CSV file without its ending; `name` if empty.
        made_by: rule that writes it; the study's table rule if empty.
        shown: whether figures, answers and the page read it.
        published: whether it holds published numbers alone.
        optional: whether a run asks for it only where a judge is named.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    file: str = ""
    made_by: str = ""
    shown: bool = True
    published: bool = False
    optional: bool = False

    @property
    def stem(self) -> str:
        """Name of the file without `.csv`."""
        return self.file or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; its title and caption are in `captions/<name>.rst` of the study's folder.

    `tables` are those whose rows are drawn; without rows in each there is nothing to draw. `beside`
    adds a control or a published line, None where missing. `draw` is the `module:function` that
    takes the rows of both, in this order, and the `settings` of the study by name; `seen`, of
    (name, tables), says in one sentence what the figure shows.
    """

    name: str
    tables: tuple[str, ...]
    draw: str
    beside: tuple[str, ...] = ()
    seen: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What a study says about one pair at the top of the page.

    `points` is the `module:function` of (tables, pair) that gives a list of points; where none of
    the tables `asks` has rows, the study says nothing. `pairs_of` is the table whose pairs get an
    answer; empty if other studies decide that.
    """

    points: str
    asks: tuple[str, ...]
    pairs_of: str = ""


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        name: key in the configuration's `studies`, folder of its figures and rules file.
        title: heading on the page.
        about: what it asks, how that is controlled, what cannot be told from it.
        settings: its section of the configuration; None without settings.
        tables: its joint tables, in the order of the page.
        join: `module:function` of (JoinContext): the rows of every table that the study's table
            rule makes, by file name.
        folder: below `tables/`; `name` if empty.
        stages: folders of a pair that `join` reads.
        numbers: folders of a pair that are there once it is measured, `stages` if empty; a missed
            gate is looked for in the first one.
        folders: from the plan to the folders that `join` reads, by stage and pair; those of
            `stages` if None.
        files: from the plan to the other files that `join` reads, by name.
        with_references: whether it is about pairs that have references alone.
        published: files of `resources/published` that `join` reads.
        join_settings: keys of `settings` that `join` reads.
        figures: in the order of the page.
        answers: what it adds to the answer of a pair.
        needs: yields a line for everything that the configuration lacks.
        glossary: words that its section of the page needs.
    """

    name: str
    title: str
    about: str
    tables: tuple[Table, ...]
    join: str
    settings: type[Section] | None = None
    folder: str = ""
    stages: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    folders: Callable[[Any], dict[str, dict[str, str]]] | None = None
    files: Callable[[Any], dict[str, str]] | None = None
    with_references: bool = False
    published: tuple[str, ...] = ()
    join_settings: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    answers: Answers | None = None
    needs: Callable[[Any], Iterator[str]] | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Folder of its tables below `tables/`."""
        return self.folder or self.name

    @property
    def measured(self) -> tuple[str, ...]:
        """Folders of a pair that are there once it is measured."""
        return self.numbers or self.stages

    @property
    def joined(self) -> tuple[Table, ...]:
        """The tables that its table rule makes."""
        return tuple(table for table in self.tables if not table.made_by)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Columns of the tables that its table rule makes from measurements, by file name."""
        return {table.stem: table.names for table in self.joined if not table.published}

    def table(self, name: str) -> Table:
        """Return one of its tables."""
        return next(table for table in self.tables if table.name == name)


def words(text: str) -> dict[str, tuple[str, str]]:
    """Read columns that several tables share: a line `name | unit | meaning` each."""
    lines = filter(None, map(str.strip, text.splitlines()))
    parts = [[part.strip() for part in line.split("|", 2)] for line in lines]
    return {name: (unit, meaning) for name, unit, meaning in parts}


def table(
    name: str,
    row: str,
    text: str,
    *,
    shared: Mapping[str, tuple[str, str]] = COMMON,
    file: str = "",
    made_by: str = "",
    shown: bool = True,
    published: bool = False,
    optional: bool = False,
) -> Table:
    """Declare a table; its columns are read from text, a line `names | unit | meaning` each.

    Names are separated by commas; the meaning is that of the first name. Other names take theirs
    from `shared` or `COMMON`; `x_low` and `x_high` are the ends of the interval of `x`, unless they
    are named there. The other arguments are those of `Table`. A column that is named twice is a
    ValueError.
    """
    meanings: dict[str, tuple[str, str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        names, unit, meaning = (*(part.strip() for part in line.split("|", 2)), "", "")[:3]
        first, *others = (column.strip() for column in names.rstrip(",").split(","))
        for column in (first, *others):
            if column in meanings:
                raise ValueError(f"table {name}: column {column} is named twice")
            meanings[column] = shared.get(column) or COMMON.get(column, ("", ""))
        if meaning:
            meanings[first] = (unit, meaning)
    for column, (_, meaning) in meanings.items():
        for ending, side in (("_low", "lower"), ("_high", "upper")):
            middle = column.removesuffix(ending)
            if not meaning and middle != column and middle in meanings:
                meanings[column] = (
                    meanings[middle][0],
                    f"{side} end of the interval of `{middle}`",
                )
    columns = tuple(Column(column, *of_one) for column, of_one in meanings.items())
    return Table(name, row, columns, file, made_by, shown, published, optional)


@dataclass(frozen=True)
class Catalogue:
    """The studies of a run or of the project, in the order of the page.

    `of_the_run` are tables that belong to no single study, directly below `tables/`.
    """

    studies: Mapping[str, Study]
    of_the_run: tuple[Table, ...] = ()

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table that the report reads, by name."""
        tables = [*(t for study in self.studies.values() for t in study.tables), *self.of_the_run]
        return {table.name: table for table in tables if table.shown}

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name, in the order of the page."""
        return {figure.name: figure for s in self.studies.values() for figure in s.figures}

    @cached_property
    def _owners(self) -> dict[str, str]:
        return {table.name: s.name for s in self.studies.values() for table in s.tables}

    @cached_property
    def figure_studies(self) -> dict[str, str]:
        """The study of every figure."""
        return {figure.name: s.name for s in self.studies.values() for figure in s.figures}

    def owner(self, table: str) -> str | None:
        """Return the study of a table; None for a table of the run."""
        return self._owners.get(table)

    def path(self, folder: Path, table: str) -> Path:
        """Return where a table lies below a run's `tables/` folder."""
        owner = self.owner(table)
        place = self.studies[owner].place if owner else ""
        return folder / place / f"{self.tables[table].stem}.csv"

    def study_of_stage(self, stage: str) -> str | None:
        """Return the study whose numbers lie in a folder of that name."""
        found = (study.name for study in self.studies.values() if stage in study.measured)
        return next(found, None)

    def study_of(self, folder: str, file: str) -> str | None:
        """Return whose table `tables/<folder>/<file>.csv` is; None for one nobody declares."""
        for study in self.studies.values():
            if study.place == folder and any(table.stem == file for table in study.tables):
                return study.name
        return None

    def of(self, studies: Collection[str]) -> "Catalogue":
        """Return the catalogue of some of the studies."""
        return Catalogue({k: s for k, s in self.studies.items() if k in studies}, self.of_the_run)

    def page_functions(self) -> list[str]:
        """Return the functions, as `module:function`, that say something on the page."""
        seen = [figure.seen for figure in self.figures.values() if figure.seen]
        return seen + [s.answers.points for s in self.studies.values() if s.answers]

    def names(self, studies: Collection[str] | None = None) -> Sequence[str]:
        """Return the names of the figures of some studies, all unless told."""
        chosen = self.studies if studies is None else studies
        return [name for name, study in self.figure_studies.items() if study in chosen]


def named(function: str) -> Any:
    """Return the function called `module:function`."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)
