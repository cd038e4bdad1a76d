"""The token ids of a whole stream, packed, and the token of every row to be stored."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from actshift.engine.extract import Job
from actshift.errors import UserError
from actshift.models.load import LoadedModel, open_tokenizer
from actshift.models.raw_text import compare_raw
from actshift.prompts.records import Prompt
from actshift.prompts.templates import Encoded, Tokenizer, encode, render_chat, rows_of, width_of
from actshift.vocab import PositionRule


@dataclass(frozen=True)
class TokenTable:
    """All prompts of a stream as tokens: 4 bytes a token, so memory stays flat."""

    packed: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " prompt"]
    token_index: Int[np.ndarray, "position prompt"]
    """Token of every stored row; -1 where the prompt has none."""
    is_special: Bool[np.ndarray, "position prompt"]

    @property
    def n_tokens(self) -> Int[np.ndarray, " prompt"]:
        """Tokens of each prompt."""
        return np.diff(self.ends, prepend=0)

    @property
    def token_id(self) -> Int[np.ndarray, "position prompt"]:
        """Token at every stored row; -1 where the prompt has none."""
        ids = self.packed[(self.ends - self.n_tokens) + np.maximum(self.token_index, 0)]
        return np.where(self.token_index < 0, -1, ids)

    def ids(self, row: int) -> Int[np.ndarray, " token"]:
        """Token ids of one prompt."""
        start = self.ends[row - 1] if row else 0
        return self.packed[start : self.ends[row]]


def tokenise(loaded: LoadedModel, job: Job, *, max_tokens: int) -> TokenTable:
    """Tokenise the prompts of a stream, each once.

    Args:
        loaded: The model; its own tokenizer is used, also for the tuned model's template.
        job: The stream.
        max_tokens: Longest prompt allowed, in tokens.

    Raises:
        UserError: A prompt is too long, holds a token the model has no embedding for, or the
            template writes a token that the model's tokenizer does not have; names the prompt.
    """
    chat = None
    if job.stream.template == "chat" and job.stream.template_from is not None:
        chat = open_tokenizer(job.stream.template_from, name=f"template of {loaded.name}")
        _check_template_tokens(loaded, chat)
        _check_raw(job)
    limit = min(max_tokens, loaded.max_positions or max_tokens)
    return _pack(
        (_encode(loaded, prompt, job=job, chat=chat, limit=limit) for prompt in job.prompts),
        rule=job.stream.positions,
    )


def _encode(
    loaded: LoadedModel, prompt: Prompt, *, job: Job, chat: Tokenizer | None, limit: int
) -> Encoded:
    where = f"{job.stream.name}: prompt '{prompt.id}'"
    try:
        encoded = encode(
            loaded.tokenizer, prompt.text, template=job.stream.template, chat_tokenizer=chat
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if len(encoded.ids) > limit:
        raise UserError(
            f"{where} has {len(encoded.ids)} tokens, allowed are {limit} (extract.max_tokens, or "
            "the model's longest input); shorten or drop it"
        )
    if max(encoded.ids) >= loaded.vocab_size:
        raise UserError(
            f"{where}: token {max(encoded.ids)} lies beyond the {loaded.vocab_size} embeddings of "
            f"{loaded.name}; its tokenizer does not belong to its weights"
        )
    return encoded


def _check_template_tokens(loaded: LoadedModel, chat: Tokenizer) -> None:
    """Refuse a template whose turn markers would fall to pieces in the model's tokenizer."""
    text = render_chat(chat, "hello").text
    known = loaded.tokenizer.get_vocab()
    for token in sorted(chat.get_added_vocab()):  # pyright: ignore[reportAttributeAccessIssue]
        if token in text and token not in known:
            raise UserError(
                f"{loaded.name}: its tokenizer has no token {token!r}, which the tuned model's "
                "chat template writes: the two tokenizers differ too much for one template"
            )


def _check_raw(job: Job) -> None:
    """Compare base's raw text with tuned's: of hub models nothing is known before they are here."""
    stream, tuned = job.stream, job.stream.template_from
    if tuned is not None and stream.model.endswith(".base"):
        pair = stream.model.removesuffix(".base")
        for note in compare_raw(stream.checkpoint, tuned, where=f"pairs.{pair}"):
            print(f"warning: {note}")


def _pack(encoded: Iterable[Encoded], *, rule: PositionRule) -> TokenTable:
    """Keep tokens as arrays: as tuples a hundred thousand prompts would take half a gigabyte."""
    ids, special = array("i"), array("b")
    ends: list[int] = []
    instruction_ends: list[int] = []
    for prompt in encoded:
        ids.extend(prompt.ids)
        special.extend(prompt.is_special)
        ends.append(len(ids))
        instruction_ends.append(prompt.instruction_end)

    def unpacked() -> Iterator[Encoded]:
        for start, end, instruction_end in zip([0, *ends], ends, instruction_ends, strict=False):
            marks = tuple(map(bool, special[start:end]))
            yield Encoded(tuple(ids[start:end]), marks, instruction_end)

    width = width_of(rule, unpacked())
    index = np.full((width, len(ends)), -1, np.int64)
    is_special = np.zeros(index.shape, bool)
    for column, prompt in enumerate(unpacked()):
        for row, token in enumerate(rows_of(rule, prompt, width=width)):
            if token is not None:
                index[row, column] = token
                is_special[row, column] = prompt.is_special[token]
    return TokenTable(np.array(ids, np.int32), np.array(ends), index, is_special)
