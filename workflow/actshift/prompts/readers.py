"""Rows of a data file, whatever its format: JSONL, JSON, CSV or Parquet, gzipped or not."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actshift.errors import UserError

#: One row: column -> value.
Row = dict[str, Any]


def read_rows(path: Path, *, key: str) -> list[Row]:
    """Read all rows of a file; the suffix says the format.

    Args:
        path: A .jsonl, .json, .csv (each also with .gz) or .parquet file.
        key: Config key of the file, for the message.

    Raises:
        UserError: Missing, unknown suffix, damaged, or not a table of rows.
    """
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    reader = _READERS.get(kind.removesuffix(".gz").lower())
    if reader is None or kind == ".parquet.gz":
        allowed = ", ".join(_READERS)
        raise UserError(f"{key}: '{path.name}' is no prompt file; allowed: {allowed}, also .gz")
    data = _bytes(path, key)
    try:
        rows = reader(data, f"{key}: {path.name}")
    except UnicodeDecodeError as error:
        raise UserError(f"{key}: {path.name} is not UTF-8 ({error.reason})") from None
    if not rows:
        raise UserError(f"{key}: {path.name} holds no rows")
    return rows


def check_sha256(path: Path, expected: str, *, key: str) -> None:
    """Refuse a file whose content is not the one the config names.

    Raises:
        UserError: The sums differ; both are named.
    """
    found = hashlib.sha256(_read(path, key)).hexdigest()
    if found != expected.lower():
        raise UserError(
            f"{key}: {path.name} has sha256 {found}, expected {expected}; "
            "the file is another one: fetch the right one or correct the sum"
        )


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key}: no file '{path}'; give the path of an existing file") from None
    except OSError as error:
        raise UserError(f"{key}: cannot read '{path}' ({error.strerror})") from None


def _bytes(path: Path, key: str) -> bytes:
    data = _read(path, key)
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{key}: {path.name} is no whole gzip file ({error})") from None


def _jsonl(data: bytes, where: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
        if line.strip():
            rows.append(_object(_json(line, f"{where}:{number}"), f"{where}:{number}"))
    return rows


def _json_file(data: bytes, where: str) -> list[Row]:
    found = _json(data.decode("utf-8-sig"), where)
    if not isinstance(found, list):
        raise UserError(f"{where}: expected a list of objects, found {type(found).__name__}")
    return [_object(row, f"{where}: item {number}") for number, row in enumerate(found, start=1)]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def _csv(data: bytes, where: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{where}:{reader.line_num}: not CSV ({error})") from None
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{where}: row {number} has not as many fields as the header")
    return rows


def _parquet(data: bytes, where: str) -> list[Row]:
    # Slow to import, and most runs read no Parquet.
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import read_table

    try:
        return read_table(BufferReader(data)).to_pylist()
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where}: not a Parquet file ({reason})") from None


_READERS: dict[str, Callable[[bytes, str], list[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json_file,
    ".csv": _csv,
    ".parquet": _parquet,
}
