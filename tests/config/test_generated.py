"""What `make schema` writes is what is committed."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "schema.py"


def test_generated_files_follow_from_the_settings_and_the_registry() -> None:
    spec = importlib.util.spec_from_file_location("schema", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for file, text in tool.generated().items():
        assert file.read_text(encoding="utf-8") == text, f"{file}: run `make schema`"
