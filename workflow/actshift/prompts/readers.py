"""Rows of a data file, whatever its format: JSONL, JSON, CSV or Parquet, gzipped or not."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actshift.errors import UserError, refusal_of

#: One row: column -> value.
Row = dict[str, Any]
#: What other files begin with that come in place of the data: what they are, and what mends it.
_IN_PLACE = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull` in "
    "its repository, or fetch the file from the hub",
    b"<!doctype html": "is a web page, not the file itself: fetch the raw file",
    b"<html": "is a web page, not the file itself: fetch the raw file",
    b"PK\x03\x04": "is a zip archive (or a spreadsheet): unpack it, or save it as .csv",
}
#: Separators that spreadsheets write in place of commas.
_SEPARATORS = (";", "\t", "|")


def read_rows(path: Path, *, key: str) -> list[Row]:
    """Read all rows of a file; the suffix says the format.

    The formats are .jsonl, .json, .csv (each also with .gz) and .parquet. `key` is the config key
    of the file, for messages.

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
        raise _not_utf8(error, path, key) from None
    if not rows:
        raise UserError(f"{key}: {path.name} holds no rows")
    return rows


def read_lines(path: Path, *, key: str) -> list[str]:
    """Read the lines of a UTF-8 text file that hold any text, stripped.

    Raises:
        UserError: Missing, not text, or something else in its place.
    """
    try:
        text = _read(path, key).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, path, key) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_sha256(path: Path, expected: str, *, key: str) -> None:
    """Refuse a file whose content is not the one the config names.

    Raises:
        UserError: The sums differ; both are named.
    """
    digest = hashlib.sha256(_read(path, key)).hexdigest()
    if digest != expected.lower():
        raise UserError(
            f"{key}: {path.name} has sha256 {digest}, expected {expected}; "
            "the file is another one: fetch the right one or correct the sum"
        )


def _read(path: Path, key: str) -> bytes:
    """The bytes of a file, unless something else lies in its place.

    Raises:
        UserError: It cannot be read, or is a Git LFS pointer, a web page or an archive.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key}: no file '{path}'; give the path of an existing file") from None
    except IsADirectoryError:
        raise UserError(f"{key}: cannot read '{path}', a folder; give the path of a file") from None
    except OSError as error:
        why = refusal_of(error, path) or f"cannot read '{path}' ({error.strerror})"
        raise UserError(f"{key}: {why}") from None
    start = data[:40].lstrip().lower()
    for mark, what in _IN_PLACE.items():
        if start.startswith(mark.lower()):
            raise UserError(f"{key}: {path.name} {what}")
    return data


def _not_utf8(error: UnicodeDecodeError, path: Path, key: str) -> UserError:
    return UserError(f"{key}: {path.name} is not UTF-8 ({error.reason}): save it as UTF-8")


def _bytes(path: Path, key: str) -> bytes:
    data = _read(path, key)
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{key}: {path.name} is no whole gzip file ({error})") from None


def _jsonl(data: bytes, where: str) -> list[Row]:
    text = data.decode("utf-8-sig")
    if text.lstrip().startswith("["):
        raise UserError(f"{where}: is one JSON list, not one object a line: name it .json")
    return [_object(value, place) for place, value in numbered_json(text, where)]


def _json_file(data: bytes, where: str) -> list[Row]:
    text = data.decode("utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise UserError(f"{where}: holds one object a line: name it .jsonl") from None
        raise _no_json(error, where) from None
    if not isinstance(content, list):
        raise UserError(f"{where}: expected a list of objects, found {type(content).__name__}")
    return [_object(row, f"{where}: item {number}") for number, row in enumerate(content, start=1)]


def numbered_json(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield `where:line` and the JSON value of every line that is not blank.

    Raises:
        UserError: A line is not JSON (names file and line).
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{where}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise _no_json(error, f"{where}:{number}") from None


def _no_json(error: json.JSONDecodeError, where: str) -> UserError:
    return UserError(f"{where}: not JSON ({error.msg}, column {error.colno})")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: expected an object, found {type(row).__name__}; "
            'write {"text": "..."} for a prompt'
        )
    return row


def _csv(data: bytes, where: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{where}:{reader.line_num}: not CSV ({error})") from None
    header = list(reader.fieldnames or ())
    other = next((mark for mark in _SEPARATORS if len(header) == 1 and mark in header[0]), None)
    if other:
        raise UserError(
            f"{where}: its header {header[0]!r} has fields separated by {other!r}, expected ',': "
            "save it as comma-separated CSV"
        )
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
