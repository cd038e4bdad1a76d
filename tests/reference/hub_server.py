"""A hub on this machine that serves folders as repositories, enough to download a snapshot."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants


def commit_of(repo: str) -> str:
    """The one commit of a repository."""
    return hashlib.sha1(repo.encode()).hexdigest()


@contextmanager
def hub_server(root: Path) -> Iterator[str]:
    """Serve every `root/<org>/<name>` while the block runs; yields the endpoint."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[0] == "api":
                self.answer(self.facts("/".join(parts[2:4]), tree="tree" in parts))
                return
            at = parts.index("resolve")
            path = root.joinpath(*parts[:at], *parts[at + 2 :])
            if not path.is_file():
                self.answer(b"{}", status=404, error="EntryNotFound")
                return
            self.answer(path.read_bytes(), commit=commit_of("/".join(parts[at - 2 : at])))

        do_HEAD = do_GET

        def facts(self, repo: str, *, tree: bool) -> bytes:
            files = [
                {
                    "type": "file",
                    "path": file.name,
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in sorted((root / repo).iterdir())
            ]
            names = [{"rfilename": file["path"]} for file in files]
            about = {"id": repo, "sha": commit_of(repo), "siblings": names}
            return json.dumps(files if tree else about).encode()

        def answer(
            self, data: bytes, *, status: int = 200, commit: str = "", error: str = ""
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if commit:
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def library_is_offline() -> bool:
    """Whether the hub library of this process asks no server, not even one on this machine."""
    return constants.HF_HUB_OFFLINE
