"""Rows made part by part: a part is written once it is whole, and a rerun makes the missing ones.

The parts are cut by what the job is and never by how far a run has come, so that a run that was
killed ends with the same bytes as one that was not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from actshift.errors import refusal_of


@dataclass(frozen=True)
class Part:
    """Some rows of a table: how to make them, and their weight in units of the progress bar."""

    make: Callable[[], pa.Table]
    weight: int


def fill_parts(parts: Sequence[Part], folder: Path, *, label: str, unit: str) -> list[Path]:
    """Make the parts that are not there or damaged, and return the files of all, in order.

    The name of the `folder` stands for all that decides the parts. `label` and `unit` are those of
    the progress bar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stray in folder.glob("*.partial"):
        stray.unlink()
    files = [folder / f"{number:05d}.parquet" for number in range(len(parts))]
    is_made = [is_whole(file) for file in files]
    before = sum(part.weight for part, whole in zip(parts, is_made, strict=True) if whole)
    total = sum(part.weight for part in parts)
    with tqdm(total=total, initial=before, desc=label, unit=unit, mininterval=1.0) as progress:
        for part, file, whole in zip(parts, files, is_made, strict=True):
            if not whole:
                write_part(part.make(), file)
                progress.update(part.weight)
    return files


def write_part(rows: pa.Table, file: Path) -> None:
    """Write a file through a neighbour and one rename, with checksums."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        pq.write_table(rows, partial, write_page_checksum=True)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def is_whole(file: Path) -> bool:
    """Whether a file of rows is there and readable; a damaged one is made again.

    An OSError where the file system refuses to read it, which says nothing about the file.
    """
    try:
        pq.read_table(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        if refusal_of(error) is not None:
            raise
        return False
    return True


def join_parts(files: Sequence[Path], out: Path, schema: pa.Schema) -> None:
    """Write the rows of all parts, in order, as one file, which appears as a whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        with pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer:
            for file in files:
                writer.write_table(pq.read_table(file, page_checksum_verification=True))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
