"""Named position rules, resolved to token indices of a prompt.

Stored `position` coordinates count from the end of the prompt: -1 is the last prompt token.
"""

from collections.abc import Iterable

from actshift.prompts.templates import Encoded
from actshift.vocab import PositionRule

_LAST_N = 8


def count_of(rule: PositionRule, encoded: Encoded) -> int:
    """Number of positions that a rule finds in one prompt, at least one.

    `post_instruction` counts the tokens after the instruction, where nothing follows it (raw
    text) it is the last prompt token alone; `last_8` counts 8 or, in a shorter prompt, all.
    """
    n_tokens = len(encoded.ids)
    if rule == "last_prompt":
        return 1
    if rule == "last_8":
        return min(_LAST_N, n_tokens)
    return max(1, n_tokens - encoded.instruction_end)


def width_of(rule: PositionRule, encoded: Iterable[Encoded] = ()) -> int:
    """Number of stored positions of a stream.

    It is 1, 8, or for `post_instruction` the largest count over the prompts (1 when there are
    none).
    """
    if rule == "last_prompt":
        return 1
    if rule == "last_8":
        return _LAST_N
    return max((count_of(rule, prompt) for prompt in encoded), default=1)


def rows_of(rule: PositionRule, encoded: Encoded, *, width: int | None = None) -> list[int | None]:
    """Token index of every stored position of a prompt, the last prompt token last.

    Returns `width` entries, the stored positions of the stream; by default those of the rule for
    this prompt alone (8 for `last_8`). None where the prompt has no such position. The entry at
    coordinate -k is token `n_tokens - k`.

    Raises:
        ValueError: `width` is smaller than what the rule finds.
    """
    if width is None:
        width = width_of(rule, [encoded])
    count = count_of(rule, encoded)
    if count > width:
        raise ValueError(f"{rule} finds {count} positions but the stream stores {width}")
    n_tokens = len(encoded.ids)
    absent: list[int | None] = [None] * (width - count)
    return absent + list(range(n_tokens - count, n_tokens))
