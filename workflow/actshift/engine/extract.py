"""Extract: one job a stream; the first job of a model to run also reads its other streams.

Finished streams lie in a cache keyed by all that decides their bytes; a job publishes its own by
hard links. A job whose stream is cached starts no torch. Two jobs of one model take turns.
"""

import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from actshift.errors import UserError
from actshift.io.atomic import file_lock, hash_json, link_tree, publishing, remove
from actshift.io.manifest import check_manifest, read_manifest, write_manifest
from actshift.io.store import verify_store
from actshift.io.writer import ARRAYS, KIND
from actshift.prompts.records import Prompt, content_hash, read_prompts
from actshift.vocab import STORE_SCHEMA, TEMPLATE_DATE, PositionRule, Template

#: Packages that decide the numbers; an upgrade of one extracts anew.
_DECIDING = ("tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Stream:
    """A (model, prompt set, template) and where its store shall lie."""

    model: str
    """Name in messages and folders, such as "llama.base"."""
    checkpoint: Path
    template_from: Path | None
    """Checkpoint folder whose chat template is used (the tuned model's); None for `raw`."""
    prompts: Path
    prompt_set: str
    template: Template
    positions: PositionRule
    out: Path

    @property
    def name(self) -> str:
        """`<model>/<prompt set>.<template>`."""
        return f"{self.model}/{self.prompt_set}.{self.template}"


@dataclass(frozen=True)
class ExtractSettings:
    """How streams are read. All but `max_tokens`, `device` and `share` decide bytes."""

    token_budget: int = 4096
    """Padded tokens a batch."""
    max_tokens: int = 512
    """A longer prompt is refused."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Dtype of the forward pass; `auto` is the checkpoint's own."""
    storage: Literal["float32", "float16"] = "float32"
    seed: int = 0
    """Recorded; extraction draws nothing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    share: bool = True
    """Also read the model's other streams while it is loaded."""


def stream_from(given: Any, names: Any, params: Any, *, out: str) -> Stream:
    """The stream that a job owes, from what its rule tracks, never from the configuration.

    Inputs are `checkpoint`, `prompts` and `template` (one checkpoint folder, or none for raw),
    wildcards `model`, `prompt_set` and `template`, params `positions`.
    """
    lender = list(given.template)
    return Stream(
        model=names.model,
        checkpoint=Path(given.checkpoint),
        template_from=Path(lender[0]) if lender else None,
        prompts=Path(given.prompts),
        prompt_set=names.prompt_set,
        template=names.template,
        positions=params.positions,
        out=Path(out),
    )


def settings_from(params: Any, *, device: Any) -> ExtractSettings:
    """How a job reads: the rule's `settings`, `dtype` and `seed`, and where it runs."""
    return ExtractSettings(**params.settings, dtype=params.dtype, seed=params.seed, device=device)


@dataclass(frozen=True)
class Job:
    """A stream with its prompts in stored order and everything that decides its bytes."""

    stream: Stream
    prompts: list[Prompt]
    identity: dict[str, Any]
    """Provenance; its hash is the key, and it becomes the attributes of the store."""

    @property
    def key(self) -> str:
        """Name of the cache entry."""
        return hash_json(self.identity)


def extract(
    stream: Stream,
    siblings: Sequence[Stream] = (),
    *,
    cache: Path,
    settings: ExtractSettings,
    code: str,
) -> None:
    """Make the store of a stream and publish it to `stream.out`.

    Args:
        stream: What this job owes.
        siblings: Other streams of the same model; those that can be read now and are not yet cached
            are read too. A hint: it changes no byte of `stream`.
        cache: Folder of the content-keyed cache, outside every declared output.
        settings: How to read.
        code: Hash of the code that decides the numbers.

    Raises:
        UserError: A bad checkpoint, template, prompt or activation, or a full disk; the message
            says which.
    """
    try:
        _extract(stream, siblings, cache=cache, settings=settings, code=code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{stream.name}: {error.strerror} while writing {error.filename or cache}; make room "
            "and run the same command again: whole windows are kept"
        ) from error


def _extract(
    stream: Stream,
    siblings: Sequence[Stream],
    *,
    cache: Path,
    settings: ExtractSettings,
    code: str,
) -> None:
    job = plan_job(stream, settings, code=code)
    entry = cache / job.key
    if not _is_sound(entry):
        with file_lock(cache / f"{job.identity['weights_hash'][:16]}.lock"):
            # Another job of this model may have read it while this one waited.
            if not _is_sound(entry):
                remove(entry)
                others = _open_siblings(job, siblings, cache=cache, settings=settings, code=code)
                # Only here: a job that merely publishes must not pay for torch.
                from actshift.engine.extract_stream import extract_jobs

                extract_jobs([job, *others], cache=cache, settings=settings)
    publish_store(entry, job)


def plan_job(stream: Stream, settings: ExtractSettings, *, code: str) -> Job:
    """Read what decides a stream's bytes, without its weights.

    Raises:
        UserError: A manifest or the prompts cannot be read, or there is no chat template.
    """
    prompts = sorted(read_prompts(stream.prompts), key=lambda p: (len(p.text.encode()), p.id))
    facts = read_manifest(stream.checkpoint)["facts"]
    names = ("source", "revision", "family", "weights_hash", "config_hash", "tokenizer_hash")
    identity = {
        "schema": STORE_SCHEMA,
        "site": "resid_post",
        **{name: facts[name] for name in names},
        **_template_identity(stream),
        "template": stream.template,
        "position_rule": stream.positions,
        "prompts_hash": content_hash(prompts),
        "dtype": settings.dtype,
        "storage": settings.storage,
        "token_budget": settings.token_budget,
        "seed": settings.seed,
        "code": code,
        "versions": {package: version(package) for package in _DECIDING},
    }
    return Job(stream, prompts, identity)


def _template_identity(stream: Stream) -> dict[str, str | None]:
    if stream.template == "raw":
        return {"template_hash": None, "template_tokenizer_hash": None, "template_date": None}
    if stream.template_from is None:
        raise UserError(f"{stream.name}: template chat needs `template_from`, the tuned model")
    facts = read_manifest(stream.template_from)["facts"]
    if not facts["template_hash"]:
        raise UserError(
            f"{stream.name}: the tokenizer of {facts['model']} has no chat template; take a tuned "
            "model that has one, or save one as chat_template.jinja in its folder"
        )
    return {
        "template_hash": facts["template_hash"],
        "template_tokenizer_hash": facts["tokenizer_hash"],
        "template_date": TEMPLATE_DATE,
    }


def _open_siblings(
    job: Job,
    siblings: Sequence[Stream],
    *,
    cache: Path,
    settings: ExtractSettings,
    code: str,
) -> list[Job]:
    """Plan the siblings that are worth reading now; what is wrong with one is its own job's."""
    jobs: dict[str, Job] = {}
    for stream in siblings if settings.share else ():
        if stream.checkpoint != job.stream.checkpoint or not stream.prompts.is_file():
            continue
        try:
            other = plan_job(stream, settings, code=code)
        except UserError as error:
            print(f"{stream.name}: left to its own job ({error})", file=sys.stderr)
            continue
        if not (cache / other.key).is_dir() and not _is_published(other):
            jobs[other.key] = other
    jobs.pop(job.key, None)
    return list(jobs.values())


def _is_sound(entry: Path) -> bool:
    """Whether a cache entry is there and undamaged (read in full: links share damage)."""
    if not entry.is_dir():
        return False
    problems = verify_store(entry)
    for problem in problems:
        print(f"cached stream is damaged, reading it again: {problem}", file=sys.stderr)
    return not problems


def _is_published(job: Job) -> bool:
    try:
        return read_manifest(job.stream.out)["facts"]["key"] == job.key
    except UserError:
        return False


def publish_store(entry: Path, job: Job) -> None:
    """Link a finished store to its declared place; the run's labels go into the manifest only."""
    stream = job.stream
    facts = read_manifest(entry)["facts"]
    labels = {"model": stream.model, "prompt_set": stream.prompt_set, "template": stream.template}
    with publishing(stream.out) as partial:
        link_tree(entry / ARRAYS, partial / ARRAYS)
        write_manifest(partial, kind=KIND, facts={**facts, **labels})


def check_checkpoint(stream: Stream) -> None:
    """Refuse a checkpoint folder that differs from its manifest.

    Raises:
        UserError: A file is missing or has another size.
    """
    problems = check_manifest(stream.checkpoint)
    if problems:
        raise UserError(f"{stream.model}: {problems[0]}; make this checkpoint again")
