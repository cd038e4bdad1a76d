"""The JSONL of a prompt set: read back as written, refused with file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import UserError
from actshift.prompts.records import Prompt, content_hash, read_prompts, to_jsonl, write_prompts
from actshift.vocab import SPLITS

WORD = st.text(min_size=1, max_size=8).filter(str.strip)
LINE = {
    "id": "a",
    "text": "How?",
    "condition": "harmless",
    "category": "",
    "cluster": "c",
    "split": "fit",
    "source": "here",
}


@st.composite
def prompt_sets(draw) -> list[Prompt]:
    ids = draw(st.lists(WORD, min_size=1, max_size=5, unique=True))
    return [
        Prompt(
            id=name,
            text=draw(WORD),
            condition=draw(WORD),
            category=draw(st.text(max_size=4)),
            cluster=f"cluster {name}",
            split=draw(st.sampled_from(SPLITS)),
            source=draw(st.text(max_size=4)),
            pair=draw(st.none() | WORD),
        )
        for name in ids
    ]


@given(prompt_sets())
def test_read_back_as_written(tmp_path_factory, prompts):
    """Also with line separators, quotes and signs of any script inside the text."""
    path = tmp_path_factory.mktemp("set") / "p.jsonl"
    write_prompts(path, prompts)
    assert read_prompts(path) == prompts
    assert [entry.name for entry in path.parent.iterdir()] == ["p.jsonl"]


@given(prompt_sets())
def test_the_hash_is_that_of_the_content(prompts):
    assert content_hash(prompts) == content_hash(list(prompts))
    if len(prompts) > 1:
        assert content_hash(prompts) != content_hash(prompts[::-1])
    assert content_hash(prompts) != content_hash(prompts[1:])


def test_rows_are_canonical():
    row = to_jsonl([Prompt(**LINE), Prompt(**{**LINE, "id": "é"}, pair="p")]).splitlines()
    assert list(json.loads(row[0])) == sorted(LINE)
    assert '"id": "é"' in row[1]
    assert '"pair": "p"' in row[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"p\.jsonl:3: not JSON"),
        ("[1]", r"p\.jsonl:3: expected a JSON object, found list"),
        (json.dumps({**LINE, "id": "b", "extra": 1}), "unknown extra"),
        (json.dumps({"id": "b"}), "missing text, condition"),
        (json.dumps({**LINE, "id": 3}), "id must be a string, found int"),
        (json.dumps({**LINE, "id": "b", "text": " "}), "text is empty"),
        (json.dumps({**LINE, "id": "b", "split": "train"}), "'train' is not one of fit, select"),
        (json.dumps(LINE), "id 'a' occurs twice"),
        (json.dumps({**LINE, "id": "b", "split": "select"}), "cluster 'c' lies in the splits"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        read_prompts(path)


def test_missing_empty_or_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no such prompt file"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no prompts"):
        read_prompts(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompts(tmp_path / "latin.jsonl")


def test_a_refused_or_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.jsonl"
    write_prompts(path, [Prompt(**LINE)])
    before = path.read_bytes()
    with pytest.raises(UserError, match="no prompts"):
        write_prompts(path, [])
    lone = Prompt(**{**LINE, "text": "\ud800"})
    with pytest.raises(UserError, match=r"'a'.*surrogate"):
        write_prompts(path, [lone])
    assert path.read_bytes() == before
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_prompts(folder, [Prompt(**LINE)])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.jsonl", "p.jsonl"]


def test_written_files_are_as_open_as_any_other(tmp_path):
    write_prompts(tmp_path / "p.jsonl", [Prompt(**LINE)])
    (tmp_path / "other").write_text("")
    assert (tmp_path / "p.jsonl").stat().st_mode == (tmp_path / "other").stat().st_mode
