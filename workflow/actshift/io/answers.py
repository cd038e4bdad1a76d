"""A cache of answers that were paid for: JSON lines, appended as they come, safe to kill."""

import json
from pathlib import Path
from threading import Lock


class AnswerCache:
    """Key -> text, in one file; threads may share it.

    A line counts once it is whole: what a killed process left of one is ignored, and asked again.
    Two processes must not write one file at a time (`io.atomic.file_lock`).
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        The file is made with its folder at the first `put`.
        """
        self._path = path
        self._lock = Lock()
        self._known: dict[str, str] = {}
        data = path.read_bytes() if path.is_file() else b""
        for line in data.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._known[entry[0]] = entry[1]
        # What is appended next must not be glued to half a line.
        self._mend = not data.endswith(b"\n") and bool(data)

    def get(self, key: str) -> str | None:
        """Return the text of a key, or None."""
        return self._known.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep the text of a key, in memory and on disk."""
        line = json.dumps([key, text]).encode() + b"\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"\n" + line if self._mend else line)
            self._mend = False
            self._known[key] = text


def _entry(line: bytes) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry):
        return entry[0], entry[1]
    return None
