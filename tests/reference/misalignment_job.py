"""The circumstances of a job of misalignment in tests."""

from pathlib import Path
from typing import Any

from actshift.engine.context import JobContext


def context(root: Path, **changes: Any) -> JobContext:
    """A job of the pair `pair`, whose unfinished work lies below `root`."""
    facts: dict[str, Any] = {
        **{"run": "r", "pair": "pair", "dtype": "float32", "device": "cpu", "seed": 0},
        **{"code": "c", "staging": root / "staging"},
    }
    return JobContext(**{**facts, **changes})
