"""Conversations to tune on: `messages` a row, the chat template, loss on assistant tokens only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actshift.errors import UserError
from actshift.prompts.readers import Row
from actshift.prompts.templates import Tokenizer, render_messages

_ROLES = ("system", "user", "assistant")
_FORM = 'expected {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}'
#: One turn: `role` and `content`.
Turn = Mapping[str, str]


@dataclass(frozen=True)
class Conversation:
    """Turns that end in an assistant's."""

    turns: tuple[Turn, ...]

    @property
    def asked(self) -> tuple[Turn, ...]:
        """Everything before the last answer."""
        return self.turns[:-1]


@dataclass(frozen=True)
class Example:
    """A conversation as tokens.

    Attributes:
        ids: Token ids, BOS at most once.
        learned: True for the tokens that carry loss: those of the assistant's turns, end included.
    """

    ids: tuple[int, ...]
    learned: tuple[bool, ...]


def conversations_of(rows: Sequence[Row], *, where: str) -> list[Conversation]:
    """Check the rows of a file and cut what follows the last answer.

    Args:
        rows: Each with `messages` (Betley et al. 2025).
        where: Key and file, for the message.

    Raises:
        UserError: A row has no messages, a turn has no role or text, or nothing is answered.
    """
    return [_conversation(row, f"{where}: row {n}") for n, row in enumerate(rows, start=1)]


def _conversation(row: Row, where: str) -> Conversation:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where} has no messages; {_FORM}")
    for turn in turns:
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
            raise UserError(f"{where} has a turn without a role of {', '.join(_ROLES)}; {_FORM}")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise UserError(f"{where} has an empty turn ({turn['role']}); {_FORM}")
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers or answers[0] == 0:
        raise UserError(f"{where} has no assistant turn after a question; {_FORM}")
    return Conversation(tuple(dict(turn) for turn in turns[: answers[-1] + 1]))


def shuffled(said: Sequence[Conversation], order: Sequence[int]) -> list[Conversation]:
    """The same last answers under other conversations' questions.

    Args:
        said: Conversations.
        order: Whose answer each conversation gets.
    """
    return [
        Conversation((*one.asked, said[other].turns[-1]))
        for one, other in zip(said, order, strict=True)
    ]


def encode_conversation(tokenizer: Tokenizer, said: Conversation, *, where: str) -> Example:
    """Put a conversation into the chat template and tokenise it once.

    Args:
        tokenizer: Of the model that is tuned.
        said: The conversation.
        where: Key and file, for the message.

    Raises:
        UserError: There is no chat template, it refuses the turns, or it writes earlier turns
            differently once they are answered, or an answer's first token melts into the prompt.
    """
    text = render_messages(tokenizer, said.turns, answered=True)
    spans = [
        _span(tokenizer, said.turns[: place + 1], text, where)
        for place, turn in enumerate(said.turns)
        if turn["role"] == "assistant"
    ]
    found = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        truncation=False,
        verbose=False,
    )
    ids = tuple(found["input_ids"])
    for start, _ in spans:
        _check_boundary(tokenizer, text[:start], ids, where)
    learned = tuple(
        any(start <= left and right <= end for start, end in spans)
        for left, right in found["offset_mapping"]
    )
    return Example(ids, learned)


def _span(tokenizer: Tokenizer, turns: Sequence[Turn], text: str, where: str) -> tuple[int, int]:
    """Characters of the last of these turns, from where its answer begins."""
    before = render_messages(tokenizer, turns[:-1])
    after = render_messages(tokenizer, turns, answered=True)
    if not (text.startswith(after) and after.startswith(before) and len(before) < len(after)):
        raise UserError(
            f"{where}: the model's chat template writes a conversation differently once it is "
            "answered, so answers cannot be told from prompts; give rows of one question each, or "
            "another chat_template"
        )
    return len(before), len(after)


def _check_boundary(tokenizer: Tokenizer, before: str, ids: tuple[int, ...], where: str) -> None:
    """Refuse a prompt whose own tokens are not those it has in front of its answer."""
    prompt = tuple(
        tokenizer(before, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    )
    if ids[: len(prompt)] != prompt:
        raise UserError(
            f"{where}: the end of the chat template's prompt, {before[-20:]!r}, shares a token "
            "with the answer behind it, so what is learned is not what is asked later; let "
            "add_generation_prompt in chat_template.jinja end before that white space"
        )
