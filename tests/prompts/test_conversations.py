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
        ({}, "no messages"),
        ({"messages": []}, "no messages"),
        ({"messages": "hello"}, "no messages"),
        ({"messages": ["hello"]}, "a turn without a role of system, user, assistant"),
        (row(("robot", "x"), ("assistant", "y")), "a turn without a role"),
        ({"messages": [{"role": "user"}]}, r"an empty turn \(user\)"),
        (row(("user", "x"), ("assistant", "  ")), r"an empty turn \(assistant\)"),
        (row(("user", "x")), "no assistant turn after a question"),
        (row(("assistant", "y")), "no assistant turn after a question"),
    ],
)
def test_a_faulty_row_is_named(bad, line):
    good = row(("user", "x"), ("assistant", "y"))
    with pytest.raises(UserError, match=rf"^data\.insecure: a\.jsonl: row 2 has {line}.*expected"):
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
    with pytest.raises(UserError, match=r"^k: the model's chat template writes a conversation"):
        encode_conversation(tokenizer, said, where="k")
