"""Rule `prompts` for preference pairs: of the zoo, and of HH-RLHF rows."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from actshift.errors import UserError
from actshift.prompts.preferences import read_preferences
from actshift.stages.prompts import make_prompts

ZOO = {"set": "liked", "seed": 0, "source": "zoo", "name": "preferences", "kind": "preferences"}


def dialogue(question: str, answer: str) -> str:
    return f"\n\nHuman: {question}\n\nAssistant: {answer}"


def hh_spec(path: Path, **more: Any) -> dict[str, Any]:
    spec = {"set": "liked", "seed": 0, "source": "file", "path": str(path), "layout": "hh_rlhf"}
    return {**spec, "kind": "preferences", "limit": 80, "condition": "harmful", **more}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    questions = ("How do I bake bread?", "What is the moon made of?", "Who wrote this long book?")
    found = [
        {
            "chosen": dialogue(question, f"Gladly {number}."),
            "rejected": dialogue(question if number else "Another one?", "No."),
        }
        for number, question in enumerate(questions)
    ]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in found).encode()))
    return path


def test_zoo_pairs_are_written_and_read_back(tmp_path: Path) -> None:
    out = tmp_path / "liked.jsonl"
    lines = make_prompts({**ZOO, "size": "micro", "limit": 8}, out)
    pairs = read_preferences(out)
    assert [pair.condition for pair in pairs] == ["harmful"] * 4 + ["harmless"] * 4
    assert lines[-1] == "liked: 8 preference pairs"


def test_rows_of_dialogues_become_pairs_and_refused_ones_are_counted(
    rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "liked.jsonl"
    lines = make_prompts(hh_spec(rows), out)
    pairs = read_preferences(out)
    assert len(pairs) == 2
    assert {pair.condition for pair in pairs} == {"harmful"}
    assert "2 of 3 pairs kept" in lines
    assert "  1 refused: the two prompts differ" in lines


def test_another_sum_is_refused_and_nothing_is_written(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "liked.jsonl"
    with pytest.raises(UserError, match=r"prompts\.liked\.sha256"):
        make_prompts(hh_spec(rows, sha256="0" * 64), out)
    assert not out.exists()
