"""sha256 of files, of JSON-able values and of small byte strings: the only hash of the project."""

import hashlib
import json
from pathlib import Path


def hash_bytes(data: bytes) -> str:
    """Return the sha256 of a byte string as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content, read in blocks (links are followed)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8 kept, NaN refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_json(value: object) -> str:
    """Return the sha256 of a JSON-able value; equal values give equal hashes."""
    return hash_bytes(canonical_json(value).encode())
