"""Where an answer begins and ends in a chat template: read from the rendering of an answered one.

A template may write something between the generation prompt and the answer (an empty thought, a
channel header), and something behind it (the token that ends the turn). A first token or a
completion is scored where the model would write it: behind what the template puts in front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from actshift.errors import UserError
from actshift.prompts.templates import (
    Encoded,
    Tokenizer,
    encode,
    name_of,
    render_messages,
    tokenise,
)

#: Stands for an answer; begins with a letter, as answers do.
_ANSWER = "ActshiftAnswerSentinel"
_QUESTION: tuple[Mapping[str, str], ...] = ({"role": "user", "content": "x"},)


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """What a chat template writes around the answer to a conversation.

    Attributes:
        prompt: Text of the conversation, generation prompt included.
        lead: Text between the generation prompt and the answer.
        gap: Spaces behind the lead, of which most tokenizers make one token with the first word:
            they are the answer's.
    """

    prompt: str
    lead: str
    gap: str


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """A conversation and an answer as token ids.

    Attributes:
        prompt: Ids up to the answer: the generation prompt and the lead.
        lead: Those of the lead alone, the last of `prompt`.
        answer: Ids of the answer, without the token that ends the turn.
    """

    prompt: tuple[int, ...]
    lead: tuple[int, ...]
    answer: tuple[int, ...]


def answer_frame(chat_tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> AnswerFrame:
    """Find what a chat template writes in front of an answer to some turns, the question last.

    Raises:
        UserError: The template does not carry the answer through, or what it writes in front of
            one does not begin with the generation prompt.
    """
    prompt = render_messages(chat_tokenizer, turns)
    before, _ = _around_answer(chat_tokenizer, turns)
    if not before.startswith(prompt):
        both = zip(prompt, before, strict=False)
        same = len([*takewhile(lambda signs: signs[0] == signs[1], both)])
        raise UserError(
            f"{name_of(chat_tokenizer)}: its chat template ends a prompt with "
            f"{_shown(prompt[same:])} where an answered conversation has {_shown(before[same:])}, "
            "so answers cannot be scored behind the prompt; make add_generation_prompt write in "
            "chat_template.jinja what stands in front of an answer there"
        )
    between = before[len(prompt) :]
    lead = between.rstrip(" ")
    return AnswerFrame(prompt, lead, between[len(lead) :])


def answer_tokens(tokenizer: Tokenizer, frame: AnswerFrame, answer: str) -> AnswerTokens | None:
    """Tokenise a conversation with its answer, once.

    The answer has no white space around it. Returns None where its first token melts into the
    prompt's last, so that the ids of the prompt alone are no prefix.
    """
    prompt = tuple(tokenise(tokenizer, frame.prompt, add_special_tokens=False)["input_ids"])
    text = frame.prompt + frame.lead + frame.gap + answer
    tokens = tokenise(tokenizer, text, add_special_tokens=False)
    whole = tuple(tokens["input_ids"])
    if whole[: len(prompt)] != prompt:
        return None
    first = len(prompt)
    if frame.lead:
        # A token that holds the end of the lead and the start of what follows is not the lead's.
        start = len(frame.prompt) + len(frame.lead)
        ends = [right for _, right in tokens["offset_mapping"]]
        while first < len(whole) and ends[first] <= start:
            first += 1
    return AnswerTokens(whole[:first], whole[len(prompt) : first], whole[first:])


def answer_lead(
    tokenizer: Tokenizer, *, chat_tokenizer: Tokenizer | None = None
) -> tuple[int, ...]:
    """Ids that a template writes between the generation prompt and an answer; most write none.

    `tokenizer` is of the model that reads the ids; the chat template is `chat_tokenizer`'s (the
    tuned model's), or its own if that is None.

    Raises:
        UserError: There is no chat template, or the ids of a prompt are no prefix of those of the
            answered conversation.
    """
    return _after_question(tokenizer, chat_tokenizer or tokenizer, _ANSWER).lead


def encode_to_answer(
    tokenizer: Tokenizer,
    text: str,
    *,
    lead: tuple[int, ...],
    chat_tokenizer: Tokenizer | None = None,
) -> Encoded:
    """Tokenise a question in the chat template up to where its answer begins.

    As `encode` with the template `chat`, and the lead (`answer_lead`) behind it.

    Raises:
        UserError: As `encode`.
    """
    question = encode(tokenizer, text, template="chat", chat_tokenizer=chat_tokenizer)
    special = question.is_special + (True,) * len(lead)
    return replace(question, ids=question.ids + lead, is_special=special)


def opener_token(tokenizer: Tokenizer, opener: str) -> int:
    """First token of an answer that begins with `opener`, where the chat template puts an answer.

    Raises:
        UserError: There is no chat template, or the opener has no first token of its own there.
    """
    tokens = _after_question(tokenizer, tokenizer, opener)
    if not tokens.answer or tokens.lead != answer_lead(tokenizer):
        raise UserError(
            f"{name_of(tokenizer)}: an answer that opens with {opener!r} has no first token of its "
            "own after the chat template; name other openers"
        )
    return tokens.answer[0]


def turn_end(tokenizer: Tokenizer, *, chat_tokenizer: Tokenizer | None = None) -> int | None:
    """Id of the token that a chat template writes right behind an answer.

    Returns None where there is no template, where it cannot render an answer, or where plain text
    follows one, which an answer may hold too.
    """
    try:
        _, tail = _around_answer(chat_tokenizer or tokenizer, _QUESTION)
    except UserError:
        return None
    tokens = tokenise(tokenizer, tail, add_special_tokens=False)
    # Special and added tokens: what no ordinary text spells.
    markers = {*tokenizer.all_special_ids, *getattr(tokenizer, "get_added_vocab", dict)().values()}
    for token, (left, right) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
        if token in markers:
            return token
        if tail[left:right].strip():
            return None
    return None


def _after_question(tokenizer: Tokenizer, chat: Tokenizer, answer: str) -> AnswerTokens:
    frame = answer_frame(chat, _QUESTION)
    tokens = answer_tokens(tokenizer, frame, answer)
    if tokens is None:
        raise UserError(
            f"{name_of(chat)}: the end of its chat template's prompt, "
            f"{_shown(frame.prompt[-20:])}, and the answer {answer!r} share a token, so an answer "
            "has no first token of its own; let add_generation_prompt in chat_template.jinja end "
            "before that white space, or name other openers"
        )
    return tokens


def _around_answer(
    chat_tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]
) -> tuple[str, str]:
    """Text in front of an answer to a conversation, and behind it."""
    answered = [*turns, {"role": "assistant", "content": _ANSWER}]
    parts = render_messages(chat_tokenizer, answered, answered=True).split(_ANSWER)
    if len(parts) != 2:
        raise UserError(
            f"{name_of(chat_tokenizer)}: its chat template writes an answer {len(parts) - 1} "
            "times; a template that writes it once is needed"
        )
    return parts[0], parts[1]


def _shown(text: str) -> str:
    return repr(text[:40]) if text else "nothing"
