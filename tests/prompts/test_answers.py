"""Where answers begin and end: against the template's own rendering of an answered conversation."""

from dataclasses import replace

import pytest
from prompts.conftest import STYLES, build

from actshift.errors import UserError
from actshift.prompts.answers import (
    answer_frame,
    answer_lead,
    answer_tokens,
    encode_to_answer,
    opener_token,
    turn_end,
)
from actshift.prompts.pair_tokens import encode_pairs
from actshift.prompts.preferences import Preference
from actshift.prompts.templates import encode

TURN = "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
HEAD = "{{ bos_token }}{% for m in messages %}"
GENERATION = "{% if add_generation_prompt %}" + TURN.replace("{{ m['role'] }}", "assistant")
#: What the template writes in front of an answer, where that is not the generation prompt alone.
LEADS = {
    "an empty thought": "<think>\n\n</think>\n\n",
    "a channel": "<|end_header_id|>final<|end_header_id|>",
    "a line": "\n",
    "a space": " ",
}
PAIR = Preference(
    id="a",
    prompt="How do I mend a wheel?",
    chosen="How to mend the bicycle",
    rejected="bread and the garden",
    condition="c",
    category="",
    cluster="a",
    split="fit",
    source="s",
)


def template(lead: str = "", *, end: str = "<|eot_id|>", generation: str = GENERATION) -> str:
    return (
        f"{HEAD}{TURN}{{% if m['role'] == 'assistant' %}}{lead}{{% endif %}}{{{{ m['content'] }}}}"
        f"{end}{{% endfor %}}{generation}{{% endif %}}"
    )


def tokenizer_with(text: str):
    found = build("llama")
    found.chat_template = text
    return found


def answered(tokenizer, answer: str) -> list[int]:
    """The reference: the whole conversation, rendered and tokenised in one step."""
    turns = [
        {"role": "user", "content": PAIR.prompt},
        {"role": "assistant", "content": answer},
    ]
    return tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]


@pytest.mark.parametrize("lead", ["", *LEADS.values()])
def test_a_pair_is_scored_as_the_answered_conversation_has_it(lead):
    tokenizer = tokenizer_with(template(lead))
    kept = encode_pairs(tokenizer, [PAIR], max_tokens=400)
    assert dict(kept.refused) == {}
    (pair,) = kept.pairs
    for side, answer in ((pair.chosen, PAIR.chosen), (pair.rejected, PAIR.rejected)):
        whole = answered(tokenizer, answer)
        assert [*pair.prompt, *side] == whole[: len(pair.prompt) + len(side)]
        assert whole[len(pair.prompt) + len(side)] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
        assert tokenizer.decode(side).strip() == answer
    asked = encode(tokenizer, PAIR.prompt, template="chat")
    assert pair.prompt[: len(asked.ids)] == asked.ids


@pytest.mark.parametrize("lead", ["", *LEADS.values()])
def test_an_opener_is_the_first_token_of_the_answer_where_the_prompt_ends(lead):
    tokenizer = tokenizer_with(template(lead))
    asked = encode_to_answer(tokenizer, PAIR.prompt, lead=answer_lead(tokenizer))
    for answer in (PAIR.chosen, PAIR.rejected):
        whole = answered(tokenizer, answer)
        assert list(asked.ids) == whole[: len(asked.ids)]
        assert opener_token(tokenizer, answer) == whole[len(asked.ids)]
        assert len(asked.ids) == len(asked.is_special)


def test_the_bare_answer_would_be_scored_where_the_model_never_writes_it():
    """Shows that the reference can fail: generation prompt and answer, nothing in between."""
    tokenizer = tokenizer_with(template(LEADS["an empty thought"]))
    asked = encode(tokenizer, PAIR.prompt, template="chat")
    whole = answered(tokenizer, PAIR.chosen)
    assert opener_token(tokenizer, PAIR.chosen) != whole[len(asked.ids)]


@pytest.mark.parametrize("style", STYLES)
def test_where_nothing_is_in_between_ids_are_those_of_prompt_and_answer(style):
    """As before this was looked at: the families of the zoo write nothing there."""
    tokenizer = build(style)
    assert answer_lead(tokenizer) == ()
    (pair,) = encode_pairs(tokenizer, [PAIR], max_tokens=400).pairs
    prompt = encode(tokenizer, PAIR.prompt, template="chat").ids
    text = answer_frame(tokenizer, PAIR.messages()).prompt
    assert pair.prompt == prompt
    for side, answer in zip(pair.sides, (PAIR.chosen, PAIR.rejected), strict=True):
        whole = tokenizer(text + answer, add_special_tokens=False)["input_ids"]
        assert [*pair.prompt, *side] == whole


def test_a_prompt_that_no_answer_follows_is_refused_and_says_what_differs():
    thinking = GENERATION + "<think>\n"
    tokenizer = tokenizer_with(template(generation=thinking))
    for ask in (
        lambda: opener_token(tokenizer, "How"),
        lambda: answer_lead(tokenizer),
        lambda: encode_pairs(tokenizer, [PAIR], max_tokens=400),
    ):
        with pytest.raises(UserError, match="ends a prompt with '<think>") as caught:
            ask()
        assert "where an answered conversation has nothing" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_prompt_whose_end_melts_into_the_answer_is_refused():
    """`Assistant: ` and `How` are one token ` How` where the answered conversation has them."""
    ending = "{% if add_generation_prompt %}the "
    tokenizer = tokenizer_with(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}the {% endif %}"
        "{{ m['content'] }}\n{% endfor %}" + ending + "{% endif %}"
    )
    with pytest.raises(UserError, match="share a token"):
        opener_token(tokenizer, "garden")
    with pytest.raises(UserError, match="share a token"):
        encode_pairs(tokenizer, [replace(PAIR, chosen="garden", rejected="river")], max_tokens=400)


def test_a_template_that_swallows_answers_is_refused():
    tokenizer = tokenizer_with("{{ messages[0]['content'] }}")
    with pytest.raises(UserError, match="writes an answer 0 times"):
        answer_frame(tokenizer, PAIR.messages())


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("<|eot_id|>", "<|eot_id|>"),
        ("\n<|end_of_text|>\n", "<|end_of_text|>"),
        (" <|eot_id|><|end_of_text|>", "<|eot_id|>"),
        ("", None),
        ("\n### next", None),
        ("\n### next<|eot_id|>", None),
    ],
)
def test_the_end_of_a_turn_is_the_first_marker_behind_an_answer(end, expected):
    tokenizer = tokenizer_with(template(end=end, generation="{% if false %}"))
    wanted = None if expected is None else tokenizer.convert_tokens_to_ids(expected)
    assert turn_end(tokenizer) == wanted


def test_a_tokenizer_without_a_template_names_no_end(bare):
    assert turn_end(bare) is None
    assert turn_end(bare, chat_tokenizer=build("llama")) == bare.convert_tokens_to_ids("<|eot_id|>")
    own = tokenizer_with("{{ raise_exception('no') }}")
    assert turn_end(own) is None


def test_text_of_answers_is_found_behind_a_lead_that_shares_a_token():
    """A space and the answer are one token: the answer's, behind the generation prompt."""
    tokenizer = tokenizer_with(template(" "))
    found = answer_tokens(tokenizer, answer_frame(tokenizer, PAIR.messages()), "bicycle wheel")
    assert found is not None
    assert found.lead == ()
    assert tokenizer.decode(found.answer) == " bicycle wheel"
