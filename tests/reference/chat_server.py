"""A real local server that speaks the chat-completions protocol, scripted by the tests."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Status, headers and body (text, or JSON-able) of one reply.
Reply = tuple[int, dict[str, str], Any]


def says(text: Any) -> Reply:
    """A chat completion with this content."""
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}}]}


@dataclass
class ChatServer:
    """What was asked, and what is answered."""

    reply: Callable[[dict[str, Any]], Reply]
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""


@contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply], *, delay: float = 0.0) -> Iterator[Any]:
    """Serve on a free port of this machine while the block runs."""
    state = ChatServer(reply)
    lock, busy = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                busy[0] += 1
                state.most_at_once = max(state.most_at_once, busy[0])
                state.asked.append(body)
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
            time.sleep(delay)
            with lock:
                status, headers, answer = state.reply(body)
                busy[0] -= 1
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *_: Any) -> None:
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up is no error of the server."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def in_turn(*replies: Reply) -> Callable[[dict[str, Any]], Reply]:
    """Give the replies one after the other, the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
