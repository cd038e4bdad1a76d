"""Position rules: the last prompt token is last, absent positions are None."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.prompts.templates import Encoded, count_of, encode, rows_of, width_of
from actshift.vocab import POSITION_RULES

LENGTHS = st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def encoded_of(n_tokens: int, instruction_end: int) -> Encoded:
    special = tuple(i >= instruction_end for i in range(n_tokens))
    return Encoded(tuple(range(n_tokens)), special, instruction_end)


@given(st.lists(LENGTHS, min_size=1, max_size=6), st.sampled_from(POSITION_RULES))
def test_coordinate_minus_k_is_token_n_minus_k(lengths, rule):
    stream = [encoded_of(*pair) for pair in lengths]
    width = width_of(rule, stream)
    for one in stream:
        rows = rows_of(rule, one, width=width)
        n_tokens = len(one.ids)
        assert len(rows) == width
        assert rows[-1] == n_tokens - 1
        for coordinate, row in zip(range(-width, 0), rows, strict=True):
            if row is not None:
                assert row == n_tokens + coordinate
                assert one.ids[coordinate] == one.ids[row]
        present = [row is not None for row in rows]
        assert present == sorted(present), "absent positions come first"
        assert sum(present) == count_of(rule, one)


@given(LENGTHS)
def test_each_rule_finds_what_its_name_says(pair):
    n_tokens, end = pair
    one = encoded_of(n_tokens, end)
    assert rows_of("last_prompt", one) == [n_tokens - 1]
    assert [row for row in rows_of("last_8", one) if row is not None] == list(range(n_tokens))[-8:]
    assert len(rows_of("last_8", one)) == 8
    after = list(range(end, n_tokens)) or [n_tokens - 1]
    assert rows_of("post_instruction", one) == after


@pytest.mark.parametrize("style", ["llama", "gemma", "qwen", "mistral"])
def test_post_instruction_is_the_template_after_the_prompt(families, style):
    tokenizer = families[style]
    stream = [encode(tokenizer, text, template="chat") for text in ("Bake bread", "user", "é?")]
    width = width_of("post_instruction", stream)
    tails = set()
    for one in stream:
        rows = rows_of("post_instruction", one, width=width)
        tails.add(tuple(one.ids[row] for row in rows if row is not None))
    assert len(tails) == 1, "the template after the prompt does not depend on the prompt"
    assert len(next(iter(tails))) == width


def test_edges():
    assert width_of("post_instruction") == 1
    with pytest.raises(ValueError, match="stores 1"):
        rows_of("last_8", encoded_of(5, 5), width=1)
