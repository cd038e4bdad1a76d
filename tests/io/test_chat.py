"""The chat client against a real local server: retries, waits, one-line refusals, no key told."""

import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from reference.chat_server import chat_server, in_turn, says

from actshift.errors import UserError
from actshift.io.chat import FILTERED, LONGEST_WAIT, ChatClient, Endpoint

ASK = [{"role": "user", "content": "which?"}]
KEY = "sk-very-secret-1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(url: str, *, waits: list[float] | None = None, **options) -> str:
    noted = [] if waits is None else waits
    with ChatClient(Endpoint(url, "m", **options), sleep=noted.append) as client:
        return client.ask(ASK)


def complaint(url: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        ask(url, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_sent_and_what_comes_back() -> None:
    with chat_server(in_turn(says("refused"))) as server:
        assert ask(server.url, key=KEY, max_tokens=3) == "refused"
    assert server.asked == [{"model": "m", "messages": ASK, "temperature": 0, "max_tokens": 3}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.paths == ["/v1/chat/completions"]


def test_without_a_key_none_is_sent() -> None:
    with chat_server(in_turn(says("ok"))) as server:
        ask(server.url)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("content", "text"), [(None, ""), ("", ""), ([], ""), ("a \ud800 b", "a ? b"), ("é", "é")]
)
def test_content_is_text_that_can_be_written(content, text: str) -> None:
    with chat_server(in_turn(says(content))) as server:
        assert ask(server.url) == text


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_passing_trouble_is_tried_again_with_growing_waits(status: int) -> None:
    trouble, waits = (status, {}, "busy"), []
    with chat_server(in_turn(trouble, trouble, trouble, says("fine"))) as server:
        assert ask(server.url, waits=waits, retries=3) == "fine"
    assert waits == [1.0, 2.0, 4.0]
    assert len(server.asked) == 4


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0.5", 0.5), ("9999", LONGEST_WAIT)])
def test_the_endpoint_says_how_long_to_wait(asked: str, waited: float) -> None:
    waits: list[float] = []
    with chat_server(in_turn((429, {"Retry-After": asked}, ""), says("fine"))) as server:
        ask(server.url, waits=waits)
    assert waits == [waited]


def test_the_wait_may_be_a_date_and_nonsense_is_ignored() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    waits: list[float] = []
    replies = [(503, {"Retry-After": text}, "") for text in (soon, "tomorrow")]
    with chat_server(in_turn(*replies, says("fine"))) as server:
        ask(server.url, waits=waits)
    assert 0 < waits[0] <= 100
    assert waits[1] == 2.0


def test_trouble_without_end_is_one_line() -> None:
    with chat_server(in_turn((500, {}, "x\ny"))) as server:
        message = complaint(server.url, retries=2)
    assert message.startswith(f"judge {server.url}: 500 Internal Server Error, in each of 3 tries")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "part"),
    [(401, "judge.api_key_env"), (403, "may not use"), (404, "before /chat/completions")],
)
def test_denied_is_said_at_once_without_what_the_endpoint_wrote(status: int, part: str) -> None:
    with chat_server(in_turn((status, {}, f"bad key {KEY} or {KEY[:9]}***"))) as server:
        message = complaint(server.url, key=KEY)
    assert f": {status}, " in message
    assert part in message
    assert KEY[:9] not in message
    assert len(server.asked) == 1


def test_other_refusals_are_quoted_in_one_line_without_the_key() -> None:
    with chat_server(in_turn((422, {}, f"no field\n'max_tokens' for {KEY}" + "!" * 999))) as server:
        message = complaint(server.url, key=KEY)
    assert "422 Unprocessable" in message
    assert "no field 'max_tokens' for ***!" in message
    assert len(message) < 300


def test_a_filter_is_no_error_but_another_400_is() -> None:
    filtered = (400, {}, {"error": {"code": "content_filter", "message": "x"}})
    with chat_server(in_turn(filtered)) as server:
        assert ask(server.url) == FILTERED
    with chat_server(in_turn((400, {}, {"error": {"code": "other", "message": "x"}}))) as server:
        assert "400 Bad Request" in complaint(server.url)


@pytest.mark.parametrize("body", ["<html>hello</html>", [], {}, {"choices": []}, {"choices": [1]}])
def test_no_chat_completion_is_said(body) -> None:
    with chat_server(in_turn((200, {}, body))) as server:
        assert "is no chat completion" in complaint(server.url)


def test_a_redirect_is_not_followed() -> None:
    with chat_server(in_turn((307, {"Location": "http://127.0.0.1:9/x"}, ""))) as server:
        assert "307" in complaint(server.url, key=KEY)


def test_silence_times_out() -> None:
    with chat_server(in_turn(says("late")), delay=1.0) as server:
        message = complaint(server.url, timeout_s=0.05, retries=1)
    assert "no answer within 0.05 s, in each of 2 tries" in message


def test_a_closed_port_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    waits: list[float] = []
    message = complaint(url, retries=7, waits=waits)
    assert "no connection (" in message
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


@pytest.mark.parametrize("key", ["sk-secret\nX-Other: 1", "sk-sécret", "sk secret", "sk-\x00"])
def test_a_key_that_no_header_can_hold_is_not_repeated(key: str) -> None:
    with pytest.raises(UserError, match="the key holds characters") as caught:
        ChatClient(Endpoint("http://127.0.0.1:9", "m", key=key))
    assert key not in "".join(traceback.format_exception(caught.value))
    assert "sk" not in repr(Endpoint("u", "m", key=key))
