"""From the text of a prompt to token ids: `raw` or `chat`, tokenised exactly once; and positions.

A chat template already writes BOS and the turn markers. Rendering it to text and tokenising that
text with special tokens switched on gives Llama and Gemma two BOS tokens, which is the commonest
error in published activation code; so here `chat` text is tokenised without special tokens.

Stored `position` coordinates count from the end of the prompt: -1 is the last prompt token.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from actshift.errors import UserError
from actshift.vocab import TEMPLATE_DATE, PositionRule, Template

_SENTINEL = "ActshiftInstructionSentinel"
#: strftime directives that a template may ask for, and what `TEMPLATE_DATE` at noon gives.
_DIRECTIVES = {
    "%-d": "26", "%d": "26", "%b": "Jul", "%B": "July", "%-m": "7", "%m": "07", "%Y": "2024",
    "%y": "24", "%A": "Friday", "%a": "Fri", "%j": "208", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
_LAST_N = 8


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that prompts need."""

    @property
    def is_fast(self) -> bool:
        """Whether offsets into the text are available."""
        ...

    @property
    def all_special_ids(self) -> Sequence[int]:
        """Ids of the special tokens."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tokenise text."""
        ...

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render a conversation."""
        ...


@dataclass(frozen=True)
class Rendered:
    """A prompt inside its chat template.

    Attributes:
        text: The whole text, generation prompt included.
        start: Character at which the instruction begins.
        end: One past the last character of the instruction.
    """

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt.

    Attributes:
        ids: Token ids, BOS at most once.
        is_special: True for special tokens and for every token of the template.
        instruction_end: Index one past the last token of the instruction text.
    """

    ids: tuple[int, ...]
    is_special: tuple[bool, ...]
    instruction_end: int


def encode(
    tokenizer: Tokenizer,
    text: str,
    *,
    template: Template,
    chat_tokenizer: Tokenizer | None = None,
) -> Encoded:
    """Tokenise one prompt once.

    `raw` is the text with the tokenizer's own special tokens. `chat` is the text in the chat
    template of `chat_tokenizer`, generation prompt included, with no special tokens beyond those
    the template writes. The chat template is `chat_tokenizer`'s (the tuned model's), or
    `tokenizer`'s own.

    Raises:
        UserError: The text is empty or begins with BOS, there is no chat template, or it
            cannot be used.
    """
    _check_text(tokenizer, text)
    if template == "raw":
        return _encode_raw(tokenizer, text)
    source = tokenizer if chat_tokenizer is None else chat_tokenizer
    _check_text(source, text)
    return _encode_rendered(tokenizer, render_chat(source, text))


def render_chat(chat_tokenizer: Tokenizer, text: str) -> Rendered:
    """Put a prompt into a chat template and say where in the result it lies.

    The place is found by rendering a sentinel instead of the prompt, so it does not matter that
    the prompt's words also occur in the template. Templates see `TEMPLATE_DATE` for today.

    Raises:
        UserError: There is no chat template, it refuses the message, or it does not carry the
            prompt through exactly once.
    """
    whole = _render(chat_tokenizer, text)
    parts = _render(chat_tokenizer, _SENTINEL).split(_SENTINEL)
    name = name_of(chat_tokenizer)
    if len(parts) != 2:
        raise UserError(
            f"{name}: its chat template writes the user message {len(parts) - 1} times; "
            "a template that writes it once is needed for `chat`"
        )
    before, after = parts
    end = len(whole) - len(after)
    if not (whole.startswith(before) and whole.endswith(after) and len(before) < end):
        raise UserError(
            f"{name}: its chat template renders the prompt {text[:40]!r} differently from other "
            "prompts (markers of the template inside the text?); remove that prompt"
        )
    return Rendered(whole, len(before), end)


def dated(source: str) -> str:
    """Give a template that asks for today's date its own `strftime_now`, with a fixed day.

    transformers turns callables among the template's variables into text, so the function has to
    be a macro inside the template. The line break after it is taken by the environment's
    `trim_blocks`, hence the template itself renders as before.
    """
    if "strftime_now" not in source:
        return source
    filters = "".join(f"|replace('{key}', '{value}')" for key, value in _DIRECTIVES.items())
    return "{% macro strftime_now(format) %}{{ format" + filters + " }}{% endmacro %}\n" + source


def _template_source(tokenizer: Tokenizer) -> str:
    source = getattr(tokenizer, "chat_template", None)
    if isinstance(source, Mapping):
        source = source.get("default")
    if not source:
        raise UserError(
            f"{name_of(tokenizer)}: its tokenizer has no chat template; take a tuned model that "
            "has one, or save one as chat_template.jinja in its folder"
        )
    return str(source)


def render_messages(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], *, answered: bool = False
) -> str:
    """Render a conversation, up to where an answer begins or with it; dates are `TEMPLATE_DATE`.

    Raises:
        UserError: There is no chat template, or it refuses the conversation.
    """
    source = _template_source(tokenizer)
    try:
        rendered = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=dated(source),
            tokenize=False,
            add_generation_prompt=not answered,
            date_string=TEMPLATE_DATE,
        )
    except Exception as error:
        # A template is a program out of a model folder: whatever it raises is about that folder.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{name_of(tokenizer)}: its chat template failed ({type(error).__name__}: {reason}); "
            "mend chat_template in the model folder"
        ) from error
    return str(rendered)


def _render(tokenizer: Tokenizer, text: str) -> str:
    return render_messages(tokenizer, [{"role": "user", "content": text}])


def _encode_raw(tokenizer: Tokenizer, text: str) -> Encoded:
    tokens = tokenise(tokenizer, text, add_special_tokens=True)
    special_ids = set(tokenizer.all_special_ids)
    added = tokens["special_tokens_mask"]
    inside = [i for i, mask in enumerate(added) if not mask]
    if not inside:
        raise UserError(f"{name_of(tokenizer)}: the prompt {text[:40]!r} has no tokens")
    special = tuple(
        bool(mask) or token in special_ids
        for token, mask in zip(tokens["input_ids"], added, strict=True)
    )
    return Encoded(tuple(tokens["input_ids"]), special, inside[-1] + 1)


def _encode_rendered(tokenizer: Tokenizer, rendered: Rendered) -> Encoded:
    tokens = tokenise(tokenizer, rendered.text, add_special_tokens=False)
    ids = tuple(tokens["input_ids"])
    inside = [
        index
        for index, (left, right) in enumerate(tokens["offset_mapping"])
        if left < rendered.end
        and right > rendered.start
        and (left < right or left > rendered.start)
    ]
    if not inside:
        shown = rendered.text[rendered.start : rendered.end][:40]
        raise UserError(f"{name_of(tokenizer)}: the prompt {shown!r} has no tokens")
    special_ids = set(tokenizer.all_special_ids)
    first, end = inside[0], inside[-1] + 1
    special = tuple(not first <= i < end or token in special_ids for i, token in enumerate(ids))
    return Encoded(ids, special, end)


def tokenise(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> Mapping[str, Any]:
    """Token ids with their offsets into the text and a mask of special tokens; nothing is cut off.

    Raises:
        UserError: The tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{name_of(tokenizer)}: its tokenizer gives no character offsets; "
            "a fast tokenizer (tokenizer.json) is needed"
        )
    return tokenizer(
        text,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )


def _check_text(tokenizer: Tokenizer, text: str) -> None:
    if not text.strip():
        raise UserError("a prompt is empty; prompts must hold some text")
    bos = getattr(tokenizer, "bos_token", None)
    if bos and text.lstrip().startswith(bos):
        raise UserError(
            f"the prompt {text[:40]!r} begins with the BOS token {bos} of {name_of(tokenizer)}; "
            "prompt sets hold plain text, templates and special tokens are added here"
        )


def name_of(tokenizer: Tokenizer) -> str:
    """What messages call a tokenizer: the folder it was loaded from, else its class."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


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
