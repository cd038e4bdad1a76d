"""Stage tables: the folders of all pairs -> the joint tables of one study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from actshift.engine.joining import JoinContext
from actshift.io.tables import write_table
from actshift.studies.contract import named


def make_tables(
    join: str, context: JoinContext, *, tables: Mapping[str, Sequence[str]], out: Path
) -> dict[str, int]:
    """Write the joint tables of a study.

    Args:
        join: `module:function` of (context): the rows of every table, by file name.
        context: What they are made from.
        tables: Columns of each table, by file name.
        out: Folder of the tables.

    Returns:
        Rows by file name.

    Raises:
        UserError: No pair has numbers, or a file of a pair is damaged.
        ValueError: A table has other columns than the study declares.
    """
    made = named(join)(context)
    for name, columns in tables.items():
        if list(made[name].columns) != list(columns):
            raise ValueError(f"{join}: {name} has {list(made[name].columns)}, not {list(columns)}")
        write_table(made[name], out / f"{name}.csv")
    return {name: len(made[name]) for name in tables}
