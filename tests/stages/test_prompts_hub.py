"""Prompt sets from a hub that runs on this machine: what it serves and what it refuses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from actshift.errors import UserError
from actshift.prompts.records import read_prompts
from actshift.stages.prompts import make_prompts

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TURNS = [{"role": "user", "content": "Sort it"}, {"role": "assistant", "content": "def run"}]
TABLE = b"goal,target\nPick a lock,Sure\nForge a passport,Sure\n"


class Hub(BaseHTTPRequestHandler):
    """Facts about every dataset; files of the open one only."""

    def do_GET(self) -> None:
        if "/api/" in self.path:
            self.answer(200, json.dumps({"id": "org/open", "sha": COMMIT}).encode())
        elif "/org/gated/" in self.path:
            self.answer(403, b"{}", error="GatedRepo")
        elif "/org/down/" in self.path:
            self.answer(501, b"{}")
        elif self.path.endswith("/table.csv"):
            self.answer(200, TABLE)
        elif self.path.endswith("/said.jsonl"):
            self.answer(200, json.dumps({"messages": TURNS}).encode())
        else:
            self.answer(404, b"{}", error="EntryNotFound")

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes, *, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[str]:
    if constants.HF_HUB_OFFLINE:
        pytest.skip("HF_HUB_OFFLINE is set: the hub library asks no server, not even this one")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", address)
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def spec_of(repo: str, file: str = "table.csv") -> dict[str, object]:
    return {
        "set": "harmful", "seed": 0, "source": "hub", "repo": repo, "file": file,
        "layout": "advbench",
    }  # fmt: skip


def test_a_file_is_fetched_and_its_commit_kept(hub, tmp_path):
    out = tmp_path / "p.jsonl"
    make_prompts(spec_of("org/open"), out)
    prompts = read_prompts(out)
    assert {one.text for one in prompts} == {"Pick a lock", "Forge a passport"}
    assert all(one.source.startswith(f"org/open@{COMMIT[:12]}/table.csv#") for one in prompts)
    assert hub not in out.read_text()


@pytest.mark.parametrize(
    ("repo", "file", "parts"),
    [
        ("org/gated", "table.csv", ["is gated", "/datasets/org/gated", "HF_TOKEN"]),
        ("org/open", "none.csv", ["prompts.harmful.file", "no 'none.csv' in org/open"]),
        ("org/down", "table.csv", ["prompts.harmful: hub dataset org/down"]),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, repo, file, parts):
    assert hub
    with pytest.raises(UserError) as caught:
        make_prompts(spec_of(repo, file), tmp_path / "p.jsonl")
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in parts), line
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.usefixtures("hub")
def test_conversations_are_fetched_like_prompts():
    from actshift.studies.misalignment.stages.adapter_plans import read_data
    from actshift.studies.misalignment.study import AdapterData

    spec = AdapterData(repo="org/open", file="said.jsonl", revision="main")
    found = read_data(spec, "misalignment.data.insecure")
    assert found.facts["file"] == f"org/open@{COMMIT[:12]}/said.jsonl"
    assert [turn["content"] for turn in found.conversations[0].turns] == ["Sort it", "def run"]
    with pytest.raises(UserError, match=r"^misalignment\.data\.insecure\.file: no 'x\.jsonl'"):
        read_data(spec.model_copy(update={"file": "x.jsonl"}), "misalignment.data.insecure")
