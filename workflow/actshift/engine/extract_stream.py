"""The half of `extract` that needs the model: tokens in, whole windows of activations out."""

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from actshift.engine.causal import causal_model
from actshift.engine.extract import ExtractSettings, Job, check_checkpoint
from actshift.engine.tokenise import TokenTable, tokenise
from actshift.errors import UserError
from actshift.hooks.reading.record import run_batch
from actshift.io.layout import plan_batches, plan_layout
from actshift.io.writer import StoreRows, StoreWriter
from actshift.models.checks import check_model
from actshift.models.load import LoadedModel, load_model


def extract_jobs(jobs: Sequence[Job], *, cache: Path, settings: ExtractSettings) -> None:
    """Load the model once and fill the cache for its streams.

    Args:
        jobs: Streams of one model. The first must succeed; what is wrong with another is said by
            its own job.
        cache: Folder of the cache.
        settings: How to read.

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
