"""Tokenised once, the instruction found, the same on every day."""

import datetime
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actshift.errors import UserError
from actshift.prompts.templates import dated, encode, render_chat

STYLES = ("llama", "gemma", "qwen", "mistral")
TEXT = "How do I mend a bicycle wheel?"
#: Plain text: no characters that normalise away, nothing that could spell a special token.
PLAIN = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf"), exclude_characters="<[|▁"),
    min_size=1,
    max_size=40,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("style", STYLES)
def test_chat_equals_what_the_library_makes_in_one_step(families, style):
    """The one-step path of transformers never adds a second BOS: it is the reference."""
    tokenizer = families[style]
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXT}],
        add_generation_prompt=True,
        chat_template=dated(tokenizer.chat_template),
    )["input_ids"]
    assert list(encode(tokenizer, TEXT, template="chat").ids) == expected


@pytest.mark.parametrize("template", ["raw", "chat"])
@pytest.mark.parametrize("style", STYLES)
def test_bos_exactly_once_where_the_family_has_one(families, style, template):
    tokenizer = families[style]
    encoded = encode(tokenizer, TEXT, template=template)
    if tokenizer.bos_token_id is None:
        assert tokenizer.bos_token_id not in encoded.ids
        return
    assert encoded.ids.count(tokenizer.bos_token_id) == 1
    assert encoded.ids[0] == tokenizer.bos_token_id


def test_the_published_way_would_double_bos(families):
    """Shows that the tokenizers here can fail: render, then tokenise with special tokens."""
    for style in ("llama", "gemma", "mistral"):
        tokenizer = families[style]
        ids = tokenizer(render_chat(tokenizer, TEXT).text)["input_ids"]
        assert ids[:2] == [tokenizer.bos_token_id] * 2


@settings(max_examples=60, deadline=None)
@given(text=PLAIN, style=st.sampled_from(STYLES), template=st.sampled_from(["raw", "chat"]))
def test_properties_of_any_plain_text(families, text, style, template):
    assume(text.strip())
    tokenizer = families[style]
    encoded = encode(tokenizer, text, template=template)
    assert len(encoded.ids) == len(encoded.is_special)
    assert 0 < encoded.instruction_end <= len(encoded.ids)
    assert not encoded.is_special[encoded.instruction_end - 1]
    assert all(encoded.is_special[encoded.instruction_end :])
    if tokenizer.bos_token_id is not None:
        assert encoded.ids.count(tokenizer.bos_token_id) == 1
    kept = [i for i, special in zip(encoded.ids, encoded.is_special, strict=True) if not special]
    assert tokenizer.decode(kept).strip() == text.strip()


@pytest.mark.parametrize("text", ["user", "assistant", "You are a helpful assistant.", "Today"])
@pytest.mark.parametrize("style", STYLES)
def test_instruction_found_though_its_words_occur_in_the_template(families, style, text):
    tokenizer = families[style]
    encoded = encode(tokenizer, text, template="chat")
    kept = [i for i, special in zip(encoded.ids, encoded.is_special, strict=True) if not special]
    assert tokenizer.decode(kept).strip() == text
    tail = tokenizer.decode(list(encoded.ids[encoded.instruction_end :]))
    after = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>", "qwen": "<|im_end|>"}
    assert tail.startswith(after.get(style, "[/INST]"))


@pytest.mark.parametrize("style", STYLES)
def test_raw_ends_with_the_instruction(families, style):
    encoded = encode(families[style], TEXT, template="raw")
    assert encoded.instruction_end == len(encoded.ids)
    assert sum(encoded.is_special) == (0 if style == "qwen" else 1)


def test_template_comes_from_the_chat_tokenizer(families, bare):
    """A base tokenizer without a template reads the tuned model's."""
    ours = encode(bare, TEXT, template="chat", chat_tokenizer=families["llama"])
    assert ours == encode(families["llama"], TEXT, template="chat")


def test_no_template_is_one_clear_line(bare):
    with pytest.raises(UserError, match=r"no chat template.*chat_template\.jinja"):
        encode(bare, TEXT, template="chat")
    assert encode(bare, TEXT, template="raw").ids


@pytest.mark.parametrize("style", ["llama", "mistral"])
def test_the_day_does_not_matter(families, style, monkeypatch):
    """Templates that ask for today's date see a fixed one."""
    import transformers.utils.chat_template_utils as utils

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2, tzinfo=tz)

    tokenizer = families[style]
    before = render_chat(tokenizer, TEXT).text
    monkeypatch.setattr(utils, "datetime", Later)
    plain = tokenizer.apply_chat_template([{"role": "user", "content": TEXT}], tokenize=False)
    assert "2031" in plain, "the clock was not moved, so this test would prove nothing"
    assert render_chat(tokenizer, TEXT).text == before
    assert "2024" in before


@pytest.mark.parametrize("directive", ["%d %b %Y", "%Y-%m-%d", "%A, %B %-d", "%a %j %y %H:%M:%S"])
def test_the_fixed_date_reads_as_strftime_writes_it(bare, directive):
    bare.chat_template = "  {% if true %}\n{{ strftime_now('" + directive + "') }}{% endif %}\n"
    bare.chat_template += "{{ messages[0]['content'] }}"
    expected = datetime.datetime(2024, 7, 26, 12).strftime(directive)
    assert render_chat(bare, TEXT).text == f"{expected}{TEXT}"


def test_texts_that_are_refused(families):
    with pytest.raises(UserError, match="empty"):
        encode(families["qwen"], " \n", template="raw")
    for template in ("raw", "chat"):
        with pytest.raises(UserError, match="begins with the BOS token <s>"):
            encode(families["mistral"], "<s>[INST]hello[/INST]", template=template)


def test_templates_that_cannot_be_used(bare):
    bare.chat_template = "{{ messages[0]['content'] }}/{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="2 times"):
        encode(bare, TEXT, template="chat")
    bare.chat_template = "{{ messages[0]['content'] if 'bicycle' not in messages[0]['content'] }}"
    with pytest.raises(UserError, match="differently"):
        encode(bare, TEXT, template="chat")
    bare.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(UserError, match="no users here"):
        encode(bare, TEXT, template="chat")


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False
        all_special_ids = ()
        bos_token = None
        chat_template = None
        name_or_path = "some/model"

        def __call__(self, *args, **kwargs):
            raise AssertionError((args, kwargs))

        apply_chat_template = __call__

    with pytest.raises(UserError, match=r"some/model: .*fast tokenizer"):
        encode(Slow(), TEXT, template="raw")


@pytest.mark.parametrize("style", STYLES)
def test_encoding_is_quick(families, style):
    """A prompt must cost far less than a forward pass of even a tiny model."""
    encode(families[style], TEXT, template="chat")
    start = time.perf_counter()
    for _ in range(50):
        encode(families[style], TEXT, template="chat")
    assert (time.perf_counter() - start) / 50 < 0.02
