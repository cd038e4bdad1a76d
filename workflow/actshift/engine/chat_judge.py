"""Asking a chat model about answers: every question once, every reply kept."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tqdm import tqdm

from actshift.errors import UserError
from actshift.io.atomic import file_lock, hash_json
from actshift.io.chat import AnswerCache, ChatClient, Endpoint, Message

_QUOTED = """\
<question>
{question}
</question>
<answer>
{answer}
</answer>"""


def quoted(question: str, answer: str) -> str:
    """A question and its answer as a judge is shown them."""
    return _QUOTED.format(question=question, answer=answer)


@dataclass(frozen=True)
class JudgeSettings:
    """The config's `judge`: endpoint, model and max_tokens decide verdicts, the rest nothing."""

    endpoint: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    max_tokens: int = 8
    max_parallel: int = 4
    timeout_s: float = 60.0
    retries: int = 5


def ask_once(
    wanted: Mapping[str, list[Message]],
    settings: JudgeSettings,
    cache: Path,
    *,
    how: Callable[[ChatClient, list[Message]], str] = ChatClient.ask,
) -> AnswerCache:
    """Ask what was never asked before, keep every reply, and return the cache of all of them.

    Args:
        wanted: conversations by a key of all that decides the reply.
        settings: whom to ask; `endpoint` and `model` are set.
        cache: folder of the replies kept before.
        how: asks one conversation and gives the text to keep.

    Raises:
        UserError: The key's variable is not set, or the endpoint does not answer.
    """
    path = cache / f"{hash_json([settings.model, settings.max_tokens])[:16]}.jsonl"
    with file_lock(path.with_suffix(".lock")):
        known = AnswerCache(path)
        missing = {key: text for key, text in wanted.items() if known.get(key) is None}
        if missing:
            _fill(known, missing, settings, how)
    return known


def _fill(
    known: AnswerCache,
    missing: Mapping[str, list[Message]],
    settings: JudgeSettings,
    how: Callable[[ChatClient, list[Message]], str],
) -> None:
    """Ask what is not known yet, some requests at a time; each reply is kept at once."""
    assert settings.endpoint is not None  # the caller looked
    assert settings.model is not None  # the configuration was checked
    endpoint = Endpoint(
        settings.endpoint,
        settings.model,
        key=_read_key(settings.api_key_env),
        max_tokens=settings.max_tokens,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
    )

    failed = Event()

    def one(key: str) -> None:
        # What denied one request denies the rest: they are not sent.
        if not failed.is_set():
            try:
                known.put(key, how(client, missing[key]))
            except BaseException:
                failed.set()
                raise

    with (
        ChatClient(endpoint) as client,
        ThreadPoolExecutor(settings.max_parallel) as pool,
        tqdm(total=len(missing), desc="judge", unit="answer", mininterval=1.0) as progress,
    ):
        futures = [pool.submit(one, key) for key in missing]
        try:
            for future in as_completed(futures):
                future.result()
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"judge.api_key_env: the environment variable {variable} is not set; set it to the "
            "key, or leave judge.api_key_env empty for an endpoint that asks for none"
        )
    return key
