"""The promises of the command line itself: no traceback, quick help, the schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ACTSHIFT = Path(sys.executable).with_name("actshift")


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ACTSHIFT), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "nowhere"),
        ("verify", "nowhere"),
        ("verify", "."),
        ("pin", "nowhere.yaml"),
        ("pin", "."),
        ("doctor", "--run", "nowhere"),
        ("schema", "--check", "nowhere.json"),
        ("new", "zoo:llama/base", "zoo:llama/chat", "-o", "/proc/nowhere/x.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("actshift: ")
    assert done.stderr.count("\n") == 1


def test_wrong_usage_has_the_same_code() -> None:
    assert call("inspect").returncode == 2
    assert call("nonsense").returncode == 2


def test_version_and_help(actshift) -> None:
    assert actshift("--version").stdout.startswith("actshift ")
    for command in ("inspect", "verify", "new", "doctor", "pin", "schema"):
        assert command in actshift("--help").stdout
        assert actshift(command, "--help").exit_code == 0


def test_the_schema_is_printed_and_compared(actshift, tmp_path: Path) -> None:
    printed = actshift("schema").stdout
    assert json.loads(printed)["title"] == "Config"
    path = tmp_path / "schema.json"
    path.write_text(printed)
    assert actshift("schema", "--check", path).exit_code == 0
    path.write_text(printed.replace("pairs", "pears"))
    result = actshift("schema", "--check", path)
    assert result.exit_code == 1
    assert "make schema" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, actshift.cli; "
        "print({'torch', 'transformers', 'numpy', 'zarr', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
