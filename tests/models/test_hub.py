import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actshift.errors import UserError
from actshift.models.hub import fetch, page, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub home, no token, no network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def cache_model(home: Path, *, repo: str = "org/name", weights: bool = True) -> Path:
    """Lay a model out as the hub library does."""
    folder = home / f"hub/models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    if weights:
        (snapshot / "model.safetensors").write_bytes(b"weights")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    return snapshot


def test_a_cached_model_is_found_offline(hub_home: Path) -> None:
    snapshot = cache_model(hub_home)
    assert fetch("org/name") == (snapshot, COMMIT)
    assert fetch("org/name", "main") == (snapshot, COMMIT)
    assert fetch("org/name", COMMIT) == (snapshot, COMMIT)
    assert resolve("org/name", "main") == COMMIT


@pytest.mark.parametrize("call", [fetch, resolve])
def test_offline_and_not_cached(hub_home: Path, call: object) -> None:
    cache_model(hub_home)
    assert callable(call)
    for repo, revision in (("org/other", None), ("org/name", "v2")):
        with pytest.raises(UserError) as caught:
            call(repo, revision)
        line = str(caught.value)
        assert f"{repo}@{revision or 'main'}" in line
        assert "HF_HUB_OFFLINE" in line
        assert "\n" not in line


def test_a_part_of_a_model_in_the_cache_is_no_model_without_weights(hub_home: Path) -> None:
    cache_model(hub_home, weights=False)
    with pytest.raises(UserError, match=r"in the cache without its weights .*HF_HUB_OFFLINE is"):
        fetch("org/name")


def test_an_id_the_hub_refuses(hub_home: Path) -> None:
    assert hub_home.is_dir()
    with pytest.raises(UserError, match="hub model org/na me@main"):
        fetch("org/na me")


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one gated, one missing and one open repository."""

    def do_GET(self) -> None:
        if "/org/gated" in self.path:
            self._answer(401, {}, error="GatedRepo")
        elif "/org/none" in self.path:
            self._answer(401, {}, error="RepoNotFound")
        elif "/revision/v9" in self.path:
            self._answer(404, {}, error="RevisionNotFound")
        elif "/org/down" in self.path:
            self._answer(501, {}, error="")
        elif "/tree/" in self.path:
            self._answer(200, [{"type": "file", "path": "model.bin", "size": 3, "oid": "a" * 40}])
        else:
            self._answer(200, {"id": "org/open", "sha": COMMIT, "siblings": []})

    do_HEAD = do_GET

    def _answer(self, status: int, body: object, *, error: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def endpoint(hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on this machine: the library's own errors, without network."""
    assert hub_home.is_dir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("call", [fetch, resolve])
@pytest.mark.parametrize(
    ("repo", "revision", "parts"),
    [
        ("org/gated", None, ["is gated", "accept its terms at", "org/gated", "HF_TOKEN"]),
        ("org/none", None, ["does not exist or is private", "org/none", "HF_TOKEN"]),
        ("org/open", "v9", ["org/open@v9", "no such revision"]),
        ("org/down", None, ["org/down@main: the hub"]),
    ],
)
def test_what_the_hub_refuses(
    endpoint: str, call: object, repo: str, revision: str | None, parts: list[str]
) -> None:
    assert callable(call)
    with pytest.raises(UserError) as caught:
        call(repo, revision)
    line = str(caught.value)
    assert all(part in line for part in parts), line
    assert "\n" not in line
    if "gated" in repo:
        assert f"{endpoint}/{repo}" in line


def test_the_token_is_never_shown(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(UserError) as caught:
        fetch("org/gated")
    assert endpoint in str(caught.value)
    assert "account of the token in use" in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_a_branch_resolves_to_its_commit(endpoint: str) -> None:
    assert endpoint
    assert resolve("org/open", "main") == COMMIT
    assert resolve("org/open", repo_type="dataset") == COMMIT


def test_pickles_are_not_downloaded(endpoint: str, hub_home: Path) -> None:
    assert endpoint
    with pytest.raises(UserError, match="no safetensors"):
        fetch("org/open")
    assert not list(hub_home.rglob("*.bin"))


def test_an_unreachable_hub_is_told(hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_home.is_dir()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for call in (fetch, resolve):
        with pytest.raises(UserError, match="cannot be reached"):
            call("org/name")


def test_pages_of_models_and_datasets(hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_home.is_dir()
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    assert page("org/name") == "http://mirror/org/name"
    assert page("org/name", "dataset") == "http://mirror/datasets/org/name"
