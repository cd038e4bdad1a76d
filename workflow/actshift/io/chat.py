"""A client of an OpenAI-compatible chat endpoint, with retries, and a cache of its answers.

The key goes into one header and nowhere else: it is left out of every message, and so are the
bodies of answers that deny access, which may repeat it.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Lock
from typing import Any

import httpx2

from actshift.errors import UserError

#: One turn of a conversation: `role` and `content`.
Message = dict[str, str]
#: Returned in place of an answer where the endpoint's own filter turned the text away.
FILTERED = "content_filter"
#: Longest wait between two tries, whatever the endpoint asks for, seconds.
LONGEST_WAIT = 300.0
#: What a later try may mend: too many requests, and trouble on the other side.
_PASSING = frozenset({408, 409, 425, 429, *range(500, 600)})
_DENIED = {
    401: "the key is missing or wrong (judge.api_key_env names the variable that holds it)",
    403: "the key may not use this model",
}
_EXCERPT = 160
#: How many first tokens an endpoint is asked the probability of: the protocol's most.
TOP_TOKENS = 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, and how patiently.

    Attributes:
        url: Base URL, such as `http://localhost:8000/v1`.
        model: Name of the model there.
        key: Secret for the Authorization header; None sends none.
        max_tokens: Longest answer.
        timeout_s: Longest wait for one answer, seconds.
        retries: Tries after the first.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 8
    timeout_s: float = 60.0
    retries: int = 5


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The reply of a model, and log-probs of its likeliest first tokens (empty where not given)."""

    text: str
    top: Mapping[str, float]


class ChatClient:
    """Asks one endpoint; threads may share it. Use as a context manager."""

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], Any] = time.sleep) -> None:
        """Prepare; nothing is sent.

        Raises:
            UserError: The key cannot stand in a header.
        """
        self._endpoint = endpoint
        self._sleep = sleep
        headers = {}
        if endpoint.key is not None:
            if not (endpoint.key.isascii() and endpoint.key.isprintable()) or " " in endpoint.key:
                # Caught here, because the library's own message would print it.
                raise UserError(f"{self._where}: the key holds characters that no key has")
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._http = httpx2.Client(headers=headers, timeout=endpoint.timeout_s)

    def __enter__(self) -> "ChatClient":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._http.close()

    def ask(self, messages: Sequence[Message]) -> str:
        """Return what the model says at temperature 0.

        Returns `FILTERED` where the endpoint's filter turned the messages away.

        Raises:
            UserError: Access is denied, nothing is there, the answer is no chat completion, or
                every try failed. One line, without the key.
        """
        return self._text(self._answer(messages, {}))

    def ask_first(self, messages: Sequence[Message]) -> FirstToken:
        """Return what the model says, and how likely each first token was, at temperature 0.

        An endpoint that refuses the wish for probabilities is asked again without it.

        Raises:
            UserError: As `ask`.
        """
        response = self._answer(messages, {"logprobs": True, "top_logprobs": TOP_TOKENS})
        if response.status_code in (400, 422) and not _is_filtered(response):
            return FirstToken(self.ask(messages), {})
        return FirstToken(self._text(response), _top_tokens(response))

    def _answer(self, messages: Sequence[Message], more: Mapping[str, Any]) -> httpx2.Response:
        """The first answer that no second try would mend."""
        trouble = ""
        for left in range(self._endpoint.retries, -1, -1):
            asked_to_wait = None
            try:
                response = self._post(messages, more)
            except httpx2.TimeoutException:
                trouble = f"no answer within {self._endpoint.timeout_s:g} s"
            except httpx2.TransportError as error:
                trouble = f"no connection ({_one_line(str(error)) or type(error).__name__})"
            else:
                if response.status_code not in _PASSING:
                    return response
                trouble = f"{response.status_code} {response.reason_phrase}"
                asked_to_wait = _retry_after(response.headers.get("Retry-After"))
            if left:
                tried = self._endpoint.retries - left
                self._sleep(min(asked_to_wait or min(60.0, 2.0**tried), LONGEST_WAIT))
        raise UserError(
            f"{self._where}: {trouble}, in each of {self._endpoint.retries + 1} tries; what was "
            "answered is kept, so run the same command again when the endpoint is up"
        )

    @property
    def _where(self) -> str:
        return f"judge {self._endpoint.url}"

    def _post(self, messages: Sequence[Message], more: Mapping[str, Any]) -> httpx2.Response:
        body = {
            "model": self._endpoint.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": self._endpoint.max_tokens,
            **more,
        }
        try:
            return self._http.post(f"{self._endpoint.url}/chat/completions", json=body)
        except httpx2.InvalidURL as error:
            raise UserError(f"{self._where}: no URL ({_one_line(str(error))})") from None

    def _text(self, response: httpx2.Response) -> str:
        """The content of an answer that needs no second try."""
        status = response.status_code
        if status != 200:
            if status in _DENIED:
                raise UserError(f"{self._where}: {status}, {_DENIED[status]}")
            if status == 404:
                raise UserError(
                    f"{self._where}: 404, no such path, or no model '{self._endpoint.model}'; "
                    "judge.endpoint is the part before /chat/completions"
                )
            if status == 400 and _is_filtered(response):
                return FILTERED
            raise UserError(
                f"{self._where}: {status} {response.reason_phrase}: {self._excerpt(response)}"
            )
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{self._where}: what it answers is no chat completion: {self._excerpt(response)}"
            ) from None
        # A lone surrogate is legal in JSON and in nothing that the text is written to afterwards.
        return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""

    def _excerpt(self, response: httpx2.Response) -> str:
        text = _one_line(response.text)
        return (text.replace(self._endpoint.key, "***") if self._endpoint.key else text)[:_EXCERPT]


def _top_tokens(response: httpx2.Response) -> dict[str, float]:
    """Log-probs of the likeliest first tokens; empty where the endpoint gives none."""
    try:
        first = response.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(entry["token"]): float(entry["logprob"]) for entry in first}
    except (ValueError, LookupError, TypeError):
        return {}


def _is_filtered(response: httpx2.Response) -> bool:
    """Whether a content filter, not the request, is why there is no answer."""
    try:
        return response.json()["error"]["code"] == FILTERED
    except (ValueError, LookupError, TypeError):
        return False


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms; None without one."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _one_line(text: str) -> str:
    return " ".join(text.split())


class AnswerCache:
    """Key -> text, in one file; threads may share it.

    A line counts once it is whole: what a killed process left of one is ignored, and asked again.
    Two processes must not write one file at a time (`io.atomic.file_lock`).
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        The file is made with its folder at the first `put`.
        """
        self._path = path
        self._lock = Lock()
        self._known: dict[str, str] = {}
        data = path.read_bytes() if path.is_file() else b""
        for line in data.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._known[entry[0]] = entry[1]
        # What is appended next must not be glued to half a line.
        self._mend = not data.endswith(b"\n") and bool(data)

    def get(self, key: str) -> str | None:
        """Return the text of a key, or None."""
        return self._known.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep the text of a key, in memory and on disk."""
        line = json.dumps([key, text]).encode() + b"\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"\n" + line if self._mend else line)
            self._mend = False
            self._known[key] = text


def _entry(line: bytes) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(e, str) for e in entry):
        return entry[0], entry[1]
    return None
