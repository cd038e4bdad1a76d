"""`actshift schema`: the JSON schema of the configuration."""

import json
from pathlib import Path

from actshift.config.schema import json_schema


def schema_text() -> str:
    """The schema as the committed file spells it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def schema_matches(path: Path) -> bool:
    """Whether a file holds exactly the schema of this version."""
    return path.read_text(encoding="utf-8") == schema_text()
