"""The cache of answers: what survives a kill, and what is not taken for an answer."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from actshift.io.chat import AnswerCache


def test_what_is_put_is_found_again(tmp_path) -> None:
    path = tmp_path / "new" / "cache.jsonl"
    cache = AnswerCache(path)
    assert cache.get("a") is None
    cache.put("a", 'two\nlines, "quotes" and é')
    cache.put("b", "")
    for known in (cache, AnswerCache(path)):
        assert known.get("a") == 'two\nlines, "quotes" and é'
        assert known.get("b") == ""


@pytest.mark.parametrize("cut", range(1, 12))
def test_half_a_line_is_ignored_and_the_next_one_whole(tmp_path, cut: int) -> None:
    path = tmp_path / "cache.jsonl"
    first = AnswerCache(path)
    first.put("a", "1")
    first.put("b", "2")
    path.write_bytes(path.read_bytes()[:-cut])
    second = AnswerCache(path)
    assert second.get("a") == "1"
    # Without its line end alone the entry is whole.
    assert second.get("b") == ("2" if cut == 1 else None)
    second.put("c", "3")
    assert [AnswerCache(path).get(key) for key in "ac"] == ["1", "3"]


@pytest.mark.parametrize("line", ["1", "{}", '["a"]', '["a", 1]', '["a", "b", "c"]', "\xff", ""])
def test_other_lines_are_ignored(tmp_path, line: str) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_bytes(line.encode("latin-1") + b'\n["a", "1"]\n')
    assert AnswerCache(path).get("a") == "1"


def test_threads_do_not_tear_lines(tmp_path) -> None:
    cache = AnswerCache(tmp_path / "cache.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: cache.put(str(i), "x" * i), range(200)))
    again = AnswerCache(tmp_path / "cache.jsonl")
    assert all(again.get(str(i)) == "x" * i for i in range(200))
