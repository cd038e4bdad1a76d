"""Tidy tables as CSV: one float format, one line ending, whole files only, a checksum beside each.

`<name>.csv.sha256` is what `sha256sum` prints, so `sha256sum -c` reads it too.
"""

from pathlib import Path

import pandas as pd

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text, hash_bytes, hash_file


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, byte-identical for equal tables.

    The index is dropped. Missing values become empty cells.

    Numerics:
        Floats keep 10 significant digits (relative error below 5e-10).
    """
    text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    # An old checksum must not stand beside a new table if the job is killed between the two.
    checksum_of(path).unlink(missing_ok=True)
    atomic_write_text(path, text)
    atomic_write_text(checksum_of(path), f"{hash_bytes(text.encode())}  {path.name}\n")


def checksum_of(path: Path) -> Path:
    """Where the checksum of a table lies."""
    return path.with_name(f"{path.name}.sha256")


def table_damage(path: Path) -> list[str]:
    """One line where a table's content is not what its checksum says; none without a checksum."""
    beside = checksum_of(path)
    if not beside.is_file() or beside.read_text().split()[:1] == [hash_file(path)]:
        return []
    return [f"{path}: content differs from its sha256 in {beside.name}"]


def read_table(path: Path) -> pd.DataFrame:
    """Read a table written by `write_table`; only empty cells are missing values.

    Raises:
        UserError: The file is missing, has no header, or is not what was written.
    """
    try:
        for line in table_damage(path):
            raise UserError(f"{line}; run the rule that makes it again, or undo the edit")
        # "NA", "None" and "null" are ordinary words in a category column.
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the rule that makes it") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a CSV table ({str(error).strip()})") from None
