import json
from pathlib import Path

from actshift.config.docs import config_page
from actshift.config.schema import json_schema

ROOT = Path(__file__).parents[2]


def test_the_committed_schema_follows_from_the_typed_config() -> None:
    committed = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert committed == json_schema(), "run `make schema`"


def test_the_docs_table_follows_from_the_typed_config() -> None:
    assert (ROOT / "docs/config.md").read_text() == config_page(), "run `make schema`"
