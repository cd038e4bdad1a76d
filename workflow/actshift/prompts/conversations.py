"""Conversations to tune on: `messages` a row, the chat template, loss on assistant tokens only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.errors import UserError
from actshift.prompts.readers import Row
from actshift.prompts.templates import Tokenizer, render_messages, tokenise

_ROLES = ("system", "user", "assistant")
_FORM = 'expected {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}'
#: How many names of columns a message lists.
_COLUMNS = 6
#: One turn: `role` and `content`.
Turn = Mapping[str, str]


@dataclass(frozen=True)
class Conversation:
    """Turns that end in an assistant's.

    Attributes:
        turns: From the first one.
        where: Key, file and row, for messages; empty where a run makes its own.
    """

    turns: tuple[Turn, ...]
    where: str = ""

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

    Each row has `messages` (Betley et al. 2025). A turn's `content` is text, or a list of parts
    that are all text, which are joined. `where` names key and file in messages.

    Raises:
        UserError: A row has no messages, a turn has no role or text, or nothing is answered.
    """
    return [_conversation(row, f"{where}: row {n}") for n, row in enumerate(rows, start=1)]


def _conversation(row: Row, where: str) -> Conversation:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        has = ", ".join(map(str, list(row)[:_COLUMNS])) or "nothing"
        raise UserError(f"{where} has no messages (it has {has}); {_FORM}")
    turns_read = [_turn(turn, f"{where}: turn {n}") for n, turn in enumerate(turns, start=1)]
    answers = [place for place, turn in enumerate(turns_read) if turn["role"] == "assistant"]
    if not answers or answers[0] == 0:
        raise UserError(f"{where} has no assistant turn after a question; {_FORM}")
    return Conversation(tuple(turns_read[: answers[-1] + 1]), where)


def _turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise UserError(f"{where} is a {type(turn).__name__}; {_FORM}")
    if turn.get("role") not in _ROLES:
        raise UserError(
            f"{where} has role {turn.get('role')!r}, allowed are {', '.join(_ROLES)}; {_FORM}"
        )
    text = _text(turn.get("content"), f"{where} ({turn['role']})")
    if not text.strip():
        raise UserError(f"{where} ({turn['role']}) is empty; leave the row out, or give its text")
    return {**turn, "content": text}


def _text(content: Any, where: str) -> str:
    """The text of a turn: a string, or parts of type text in a row."""
    if isinstance(content, str):
        return content
    if content is None:
        raise UserError(f"{where} has no content, expected text (a tool call has none)")
    if not isinstance(content, list):
        raise UserError(f"{where}: content is of type {type(content).__name__}, expected text")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise UserError(
                f"{where}: content has a part of type {kind}, expected text or parts of type text"
            )
        texts.append(part["text"])
    return "".join(texts)


def shuffled(conversations: Sequence[Conversation], order: Sequence[int]) -> list[Conversation]:
    """The same last answers under other conversations' questions.

    `order` says whose answer each conversation gets.
    """
    return [
        Conversation((*conversation.asked, conversations[place].turns[-1]), conversation.where)
        for conversation, place in zip(conversations, order, strict=True)
    ]


def encode_conversation(tokenizer: Tokenizer, conversation: Conversation, *, where: str) -> Example:
    """Put a conversation into the chat template and tokenise it once.

    `where` names a conversation in messages that names no place of its own.

    Raises:
        UserError: There is no chat template, it refuses the turns, or it writes earlier turns
            differently once they are answered, or an answer's first token melts into the prompt.
    """
    where = conversation.where or where
    text = _rendered(tokenizer, conversation.turns, where)
    spans = [
        _span(tokenizer, conversation.turns[: place + 1], text, where)
        for place, turn in enumerate(conversation.turns)
        if turn["role"] == "assistant"
    ]
    tokens = tokenise(tokenizer, text, add_special_tokens=False)
    ids = tuple(tokens["input_ids"])
    for start, _ in spans:
        _check_boundary(tokenizer, text[:start], ids, where)
    learned = tuple(
        any(start <= left and right <= end for start, end in spans)
        for left, right in tokens["offset_mapping"]
    )
    return Example(ids, learned)


def _rendered(
    tokenizer: Tokenizer, turns: Sequence[Turn], where: str, *, answered: bool = True
) -> str:
    """Render turns, and tell a template that fails from one that takes no such turns.

    Raises:
        UserError: There is no chat template, it fails, or it refuses these turns.
    """
    try:
        return render_messages(tokenizer, turns, answered=answered)
    except UserError as error:
        why = " ".join(str(error.__cause__ or error).split())
        if not _takes(tokenizer, [{"role": "user", "content": "x"}], answered=False):
            raise
        if turns[0]["role"] == "system" and _takes(tokenizer, turns[1:], answered=answered):
            raise UserError(
                f"{where}: the model's chat template takes no system turn ({why}): put its text "
                "into the first user turn, or leave it out"
            ) from error
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"{where}: the model's chat template does not take these turns ({roles}): {why}; most "
            "want user and assistant by turns, from a user on"
        ) from error


def _takes(tokenizer: Tokenizer, turns: Sequence[Turn], *, answered: bool) -> bool:
    """Whether a chat template renders some turns."""
    try:
        render_messages(tokenizer, turns, answered=answered)
    except UserError:
        return False
    return True


def _span(tokenizer: Tokenizer, turns: Sequence[Turn], text: str, where: str) -> tuple[int, int]:
    """Characters of the last of these turns, from where its answer begins."""
    before = _rendered(tokenizer, turns[:-1], where, answered=False)
    after = _rendered(tokenizer, turns, where)
    if not (text.startswith(after) and after.startswith(before) and len(before) < len(after)):
        raise UserError(
            f"{where}: the model's chat template writes a conversation differently once it is "
            "answered, so answers cannot be told from prompts; give rows of one question each, or "
            "another chat_template"
        )
    return len(before), len(after)


def _check_boundary(tokenizer: Tokenizer, before: str, ids: tuple[int, ...], where: str) -> None:
    """Refuse a prompt whose own tokens are not those it has in front of its answer."""
    prompt = tuple(tokenise(tokenizer, before, add_special_tokens=False)["input_ids"])
    if ids[: len(prompt)] != prompt:
        raise UserError(
            f"{where}: the end of the chat template's prompt, {before[-20:]!r}, shares a token "
            "with the answer behind it, so what is learned is not what is asked later; let "
            "add_generation_prompt in chat_template.jinja end before that white space"
        )
