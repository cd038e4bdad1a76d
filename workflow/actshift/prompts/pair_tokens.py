"""Preference pairs as token ids, tokenised once through the chat template.

A completion's tokens are those of prompt and completion read as one text, behind the prompt's own
tokens. Where the tokenizer joins the two at the border, there is no such split and the pair is
refused; so are all pairs that could not be scored as what they say.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from actshift.pairs import TokenPair
from actshift.prompts.preferences import Kept, Preference
from actshift.prompts.templates import Tokenizer, render_messages

#: As they are, or both cut to the tokens of the shorter one.
Length = Literal["natural", "matched"]


def encode_pairs(
    tokenizer: Tokenizer,
    pairs: Sequence[Preference],
    *,
    length: Length = "natural",
    max_tokens: int,
    chat_tokenizer: Tokenizer | None = None,
) -> Kept:
    """Tokenise pairs; those that cannot be used are refused and counted.

    The template writes all special tokens there are; none are added. An answer stands directly
    behind the generation prompt, without the token that ends a turn.

    Args:
        tokenizer: Of the models that read the pairs.
        pairs: The pairs.
        length: `matched` cuts both completions to the tokens of the shorter one, so that sums of
            log-probs and positions can be compared.
        max_tokens: Most tokens of a prompt with its longer completion.
        chat_tokenizer: Where the chat template comes from (the tuned model's); `tokenizer` if None.

    Returns:
        `TokenPair`s in the order of the pairs, under their ids, and how many were refused for what.

    Raises:
        UserError: There is no chat template, or it refuses a conversation.
    """
    refused: Counter[str] = Counter()
    kept: list[TokenPair] = []
    for pair in pairs:
        text = render_messages(chat_tokenizer or tokenizer, pair.messages())
        found = _encode(tokenizer, text, pair, length, max_tokens)
        if isinstance(found, str):
            refused[found] += 1
        else:
            kept.append(found)
    return Kept(kept, refused)


def _encode(
    tokenizer: Tokenizer, text: str, pair: Preference, length: Length, max_tokens: int
) -> TokenPair | str:
    """The tokens of a pair, or why it is refused."""
    prompt = _ids(tokenizer, text)
    if not prompt:
        return "the prompt has no tokens"
    sides: list[tuple[int, ...]] = []
    special = set(tokenizer.all_special_ids)
    for answer in (pair.chosen.strip(), pair.rejected.strip()):
        if not answer:
            return "a completion is empty"
        whole = _ids(tokenizer, text + answer)
        if whole[: len(prompt)] != prompt:
            return "a completion's first token melts into the prompt's last"
        said = whole[len(prompt) :]
        if not said:
            return "a completion is empty"
        if special & set(said):
            return "a completion holds a special token"
        if len(whole) > max_tokens:
            return f"longer than {max_tokens} tokens"
        sides.append(said)
    shorter = min(map(len, sides))
    chosen, rejected = (side[:shorter] if length == "matched" else side for side in sides)
    if chosen == rejected:
        return "the two completions are the same tokens"
    return TokenPair(pair.id, prompt, chosen, rejected)


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(
        tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    )
