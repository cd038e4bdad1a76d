"""Write what is generated from the typed configuration: its JSON schema and docs/config.md."""

import json
from pathlib import Path

from actshift.config.docs import config_page
from actshift.config.schema import json_schema

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write both files; a test fails when they drift from workflow/actshift/config/schema.py."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (ROOT / "workflow/schemas/config.schema.json").write_text(schema)
    (ROOT / "docs/config.md").write_text(config_page())


if __name__ == "__main__":
    main()
