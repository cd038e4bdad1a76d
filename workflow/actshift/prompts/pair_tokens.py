"""Preference pairs as token ids, tokenised once through the chat template.

A completion's tokens are those of prompt and completion read as one text, behind the prompt's own
tokens and what the template writes in front of an answer. Where the tokenizer joins the two at the
border, there is no such split and the pair is refused; so are all pairs that could not be scored as
what they say.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from actshift.errors import UserError
from actshift.patching import TokenPair
from actshift.prompts.answers import AnswerFrame, answer_frame, answer_tokens
from actshift.prompts.preferences import Kept, Preference
from actshift.prompts.templates import Tokenizer, name_of

#: As they are, or both cut to the tokens of the shorter one.
Length = Literal["natural", "matched"]
_MELTS = "a completion's first token melts into the prompt's last"


def encode_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[Preference],
    *,
    length: Length = "natural",
    max_tokens: int,
    chat_tokenizer: Tokenizer | None = None,
) -> Kept:
    """Tokenise pairs; those that cannot be used are refused and counted.

    The template writes all special tokens there are; none are added. An answer stands where the
    template puts one: behind the generation prompt and what it writes in between, which belongs to
    the prompt; without the token that ends a turn. `matched` cuts both completions to the tokens of
    the shorter one, so that sums of log-probs and positions can be compared; `max_tokens` is the
    most of a prompt with its longer completion. The chat template is `chat_tokenizer`'s (the tuned
    model's), or `tokenizer`'s. Returns `TokenPair`s in the order of the pairs, under their ids,
    with counts of those refused.

    Raises:
        UserError: There is no chat template, it refuses a conversation, or what it writes in front
            of an answer does not begin with the generation prompt, in text or in tokens.
    """
    refused: Counter[str] = Counter()
    kept: list[TokenPair] = []
    chat = chat_tokenizer or tokenizer
    prompt_end = ""
    for pair in pairs:
        frame = answer_frame(chat, pair.messages())
        prompt_end = frame.prompt[-20:]
        encoded = _encode(tokenizer, frame, pair, length, max_tokens)
        if isinstance(encoded, str):
            refused[encoded] += 1
        else:
            kept.append(encoded)
    if refused[_MELTS] and refused[_MELTS] == len(pairs):
        raise UserError(
            f"{name_of(chat)}: the end of its chat template's prompt, {prompt_end!r}, and "
            "the answer behind it share a token, so no answer has tokens of its own; let "
            "add_generation_prompt in chat_template.jinja end before that white space"
        )
    return Kept(kept, refused)


def _encode(
    tokenizer: Tokenizer, frame: AnswerFrame, pair: Preference, length: Length, max_tokens: int
) -> TokenPair | str:
    """The tokens of a pair, or why it is refused."""
    special = set(tokenizer.all_special_ids)
    prompts: list[tuple[int, ...]] = []
    sides: list[tuple[int, ...]] = []
    for answer in (pair.chosen.strip(), pair.rejected.strip()):
        if not answer:
            return "a completion is empty"
        tokens = answer_tokens(tokenizer, frame, answer)
        if tokens is None:
            return _MELTS
        if not tokens.prompt:
            return "the prompt has no tokens"
        if not tokens.answer:
            return "a completion is empty"
        if special & set(tokens.answer):
            return "a completion holds a special token"
        if len(tokens.prompt) + len(tokens.answer) > max_tokens:
            return f"longer than {max_tokens} tokens"
        prompts.append(tokens.prompt)
        sides.append(tokens.answer)
    if prompts[0] != prompts[1]:
        return "the two completions melt differently into what the template writes before them"
    shorter = min(map(len, sides))
    chosen, rejected = (side[:shorter] if length == "matched" else side for side in sides)
    if chosen == rejected:
        return "the two completions are the same tokens"
    return TokenPair(pair.id, prompts[0], chosen, rejected)
