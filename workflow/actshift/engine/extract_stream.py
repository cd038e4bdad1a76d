"""The half of `extract` that needs the model: tokens in, whole windows of activations out."""

import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from tqdm import tqdm

from actshift.engine.causal import causal_model
from actshift.engine.extract import ExtractSettings, Job, check_checkpoint
from actshift.errors import UserError
from actshift.hooks.reading.record import run_batch
from actshift.io.layout import plan_batches, plan_layout
from actshift.io.writer import StoreRows, StoreWriter
from actshift.models.checks import check_model
from actshift.models.load import LoadedModel, load_model, open_tokenizer
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
    """Tokenise the prompts of a stream, each once, by the model's own tokenizer.

    A UserError names the prompt that is too long or holds a token that the model has no embedding
    for, or the token of the template that the model's tokenizer does not have.
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


def extract_jobs(jobs: Sequence[Job], *, cache: Path, settings: ExtractSettings) -> None:
    """Load the model once and fill the cache for its streams.

    The first stream must succeed; what is wrong with another is said by its own job.

    Raises:
        UserError: The checkpoint fails a load-time check, or the first stream cannot be read.
    """
    first = jobs[0].stream
    check_checkpoint(first)
    loaded = load_model(
        first.checkpoint, name=first.model, dtype=settings.dtype, device=settings.device
    )
    check_model(loaded)
    for job in jobs:
        try:
            extract_one(loaded, job, cache=cache, settings=settings)
        except UserError as error:
            if job is jobs[0]:
                raise
            print(f"{job.stream.name}: left to its own job ({error})", file=sys.stderr)


def extract_one(loaded: LoadedModel, job: Job, *, cache: Path, settings: ExtractSettings) -> None:
    """Read one stream into `<cache>/<key>`, window by window, through `<cache>/<key>.partial`."""
    table = tokenise(loaded, job, max_tokens=settings.max_tokens)
    layout = plan_layout(
        layers=len(loaded.blocks),
        positions=table.token_index.shape[0],
        prompts=len(job.prompts),
        d_model=loaded.d_model,
    )
    batches = plan_batches(table.n_tokens, layout, token_budget=settings.token_budget)
    staging = cache / f"{job.key}.partial"
    attrs = {
        **job.identity,
        "device": loaded.device.type,
        "forward_dtype": str(loaded.dtype).removeprefix("torch."),
        "attention": loaded.model.config._attn_implementation,
        "library_versions": {name: version(name) for name in ("numpy", "zarr")},
        "n_batches": sum(map(len, batches)),
    }
    writer = StoreWriter(
        staging, layout, _rows(job, table, batches), attrs=attrs, dtype=settings.storage
    )
    _fill(loaded, job, table, batches=batches, writer=writer)
    writer.finish({"key": job.key, **job.identity})
    staging.rename(cache / job.key)


def _rows(job: Job, table: TokenTable, batches: list[list[np.ndarray]]) -> StoreRows:
    batch, batch_row = np.empty_like(table.n_tokens), np.empty_like(table.n_tokens)
    for number, members in enumerate(chain.from_iterable(batches)):
        batch[members] = number
        batch_row[members] = np.arange(len(members))
    return StoreRows(
        prompt_ids=[prompt.id for prompt in job.prompts],
        n_tokens=table.n_tokens,
        valid=table.token_index >= 0,
        token_id=table.token_id,
        is_special=table.is_special,
        token_index=table.token_index,
        batch=batch,
        batch_row=batch_row,
    )


def _fill(
    loaded: LoadedModel,
    job: Job,
    table: TokenTable,
    *,
    batches: list[list[np.ndarray]],
    writer: StoreWriter,
) -> None:
    """Run and write the missing windows; say how fast it went."""
    size = writer.layout
    causal = causal_model(loaded.model)
    missing = writer.missing()
    spans = [size.span(window) for window in missing]
    prompts = sum(stop - start for start, stop in spans)
    # One window, reused; every row of it is overwritten before it is written out.
    buffer = np.empty((size.layers + 1, size.positions, size.window, size.d_model), np.float32)
    began = time.perf_counter()
    with tqdm(
        total=size.prompts,
        initial=size.prompts - prompts,
        desc=job.stream.name,
        unit="prompt",
        mininterval=1.0,
    ) as progress:
        for window, (start, stop) in zip(missing, spans, strict=True):
            block = buffer[:, :, : stop - start]
            for members in batches[window]:
                ids = [table.ids(row) for row in members.tolist()]
                try:
                    rows = run_batch(causal, ids, table.token_index[:, members])
                except torch.OutOfMemoryError:
                    raise UserError(
                        f"{job.stream.name}: the device is out of memory at a batch of {len(ids)} "
                        f"prompts of up to {max(map(len, ids))} tokens; lower extract.token_budget"
                    ) from None
                block[:, :, members - start] = rows
                progress.update(len(members))
            writer.write(window, resid_post=block[:-1], final_norm=block[-1], model=loaded.name)
    tokens = sum(int(table.n_tokens[start:stop].sum()) for start, stop in spans)
    gigabytes = prompts * buffer[:, :, 0].size * np.dtype(writer.dtype).itemsize / 1e9
    _report(
        job.stream.name, prompts, tokens, seconds=time.perf_counter() - began, gigabytes=gigabytes
    )


def _report(name: str, prompts: int, tokens: int, *, seconds: float, gigabytes: float) -> None:
    print(
        f"{name}: {prompts} prompts, {tokens} tokens in {seconds:.1f} s "
        f"({prompts / seconds:.0f} prompts/s, {tokens / seconds:.0f} tokens/s), {gigabytes:.3g} GB",
        file=sys.stderr,
    )
