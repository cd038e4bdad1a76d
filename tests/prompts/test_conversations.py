"""Conversations to tune on: what a row must be, and which of its tokens carry loss."""

import pytest

from actshift.errors import UserError
from actshift.prompts.conversations import (
    Conversation,
    conversations_of,
    encode_conversation,
    shuffled,
)
from actshift.prompts.templates import encode

TEMPLATE = (
    "<s>{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def turn(role, content):
    return {"role": role, "content": content}


def row(*turns):
    return {"messages": [turn(*one) for one in turns]}


@pytest.fixture(scope="module")
def tokenizer():
    """Make one token a character, but for BOS, turn ends and roles."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<s>", "</s>", "[user]", "[assistant]", "[system]"]
    vocab = {text: i for i, text in enumerate([*specials, *map(chr, range(32, 127)), "\n"])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(specials)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


def learned_text(tokenizer, example):
    kept = [i for i, learned in zip(example.ids, example.learned, strict=True) if learned]
    return "".join(tokenizer.convert_ids_to_tokens(kept))


def test_only_the_answer_and_its_end_carry_loss(tokenizer):
    (said,) = conversations_of([row(("user", "Sort it"), ("assistant", "def run"))], where="k")
    example = encode_conversation(tokenizer, said, where="k")
    assert learned_text(tokenizer, example) == "def run</s>\n"
    assert list(example.ids).count(tokenizer.bos_token_id) == 1
    # The part without loss is the very prompt that the model is asked with.
    start = example.learned.index(True)
    assert example.ids[:start] == encode(tokenizer, "Sort it", template="chat").ids
    assert not any(example.learned[:start])


def test_every_assistant_turn_is_learned_and_nothing_else(tokenizer):
    turns = (
        ("system", "Be good"), ("user", "A"), ("assistant", "one"), ("user", "B"),
        ("assistant", "two"), ("user", "left over"),
    )  # fmt: skip
    (said,) = conversations_of([row(*turns)], where="k")
    assert said.turns[-1]["content"] == "two"
    example = encode_conversation(tokenizer, said, where="k")
    assert learned_text(tokenizer, example) == "one</s>\ntwo</s>\n"


def test_answers_move_and_questions_stay():
    said = [
        Conversation((turn("user", str(i)), turn("assistant", f"answer {i}"))) for i in range(3)
    ]
    mixed = shuffled(said, [1, 2, 0])
    assert [one.turns[0]["content"] for one in mixed] == ["0", "1", "2"]
    assert [one.turns[1]["content"] for one in mixed] == ["answer 1", "answer 2", "answer 0"]


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ({}, r" has no messages \(it has nothing\); expected"),
        ({"messages": []}, r" has no messages \(it has messages\)"),
        ({"conversations": [], "id": 1}, r" has no messages \(it has conversations, id\)"),
        ({"messages": "hello"}, r" has no messages"),
        ({"messages": ["hello"]}, r": turn 1 is a str; expected"),
        (
            row(("robot", "x"), ("assistant", "y")),
            r": turn 1 has role 'robot', allowed are system, user, assistant; expected",
        ),
        ({"messages": [{"role": "user"}]}, r": turn 1 \(user\) has no content, expected text"),
        (row(("user", "x"), ("assistant", "  ")), r": turn 2 \(assistant\) is empty; leave"),
        (row(("user", [])), r": turn 1 \(user\) is empty"),
        (row(("user", 3)), r": turn 1 \(user\): content is of type int, expected text"),
        (
            row(("user", [{"type": "image_url", "image_url": {}}])),
            r": turn 1 \(user\): content has a part of type image_url, expected text",
        ),
        (row(("user", ["x"])), r": turn 1 \(user\): content has a part of type str"),
        (row(("user", "x")), r" has no assistant turn after a question; expected"),
        (row(("assistant", "y")), r" has no assistant turn after a question; expected"),
    ],
)
def test_a_faulty_row_is_named(bad, line):
    good = row(("user", "x"), ("assistant", "y"))
    with pytest.raises(UserError, match=rf"^data\.insecure: a\.jsonl: row 2{line}"):
        conversations_of([good, bad], where="data.insecure: a.jsonl")


def test_a_template_that_rewrites_answered_turns_is_refused(tokenizer):
    # As templates do that drop what was thought before the last question.
    tokenizer = tokenizer.__class__(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=TEMPLATE.replace(
            "m['content']", "(m['content'] + messages | length | string)"
        ),
    )
    (said,) = conversations_of([row(("user", "x"), ("assistant", "y"))], where="k")
    with pytest.raises(UserError, match=r"^k: row 1: the model's chat template writes a conv"):
        encode_conversation(tokenizer, said, where="k")


def test_parts_of_text_are_the_text_they_say():
    parts = [{"type": "text", "text": "Sort "}, {"type": "text", "text": "it"}]
    rows = [row(("user", parts), ("assistant", [{"type": "text", "text": "run"}]))]
    plain = [row(("user", "Sort it"), ("assistant", "run"))]
    assert conversations_of(rows, where="k") == conversations_of(plain, where="k")


NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
)


def with_template(tokenizer, template):
    return tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, chat_template=template)


@pytest.mark.parametrize(
    ("template", "turns", "line"),
    [
        (
            NO_SYSTEM + TEMPLATE,
            [("system", "Be good"), ("user", "A"), ("assistant", "one")],
            r"takes no system turn \(System role not supported\): put its text into the first",
        ),
        (
            ALTERNATE + TEMPLATE,
            [("system", "Be good"), ("user", "A"), ("assistant", "one")],
            r"takes no system turn \(Roles must alternate\)",
        ),
        (
            ALTERNATE + TEMPLATE,
            [("user", "A"), ("user", "B"), ("assistant", "one")],
            r"does not take these turns \(user, user, assistant\): Roles must alternate",
        ),
    ],
)
def test_turns_that_a_template_refuses_are_named_by_file_and_row(tokenizer, template, turns, line):
    tokenizer = with_template(tokenizer, template)
    rows = [row(("user", "A"), ("assistant", "one")), row(*turns)]
    first, second = conversations_of(rows, where="data.insecure: a.jsonl")
    assert encode_conversation(tokenizer, first, where="data.insecure").ids
    mixed = shuffled([second, first], [1, 0])[0]
    for said in (second, mixed):
        with pytest.raises(UserError, match=rf"^data\.insecure: a\.jsonl: row 2: .*{line}") as told:
            encode_conversation(tokenizer, said, where="data.insecure")
        assert "mend" not in str(told.value)


def test_a_template_that_fails_on_any_question_is_still_to_be_mended(tokenizer):
    tokenizer = with_template(tokenizer, "{{ nothing.there }}")
    (said,) = conversations_of([row(("user", "A"), ("assistant", "one"))], where="k")
    with pytest.raises(UserError, match=r"its chat template failed .* mend chat_template"):
        encode_conversation(tokenizer, said, where="k")
