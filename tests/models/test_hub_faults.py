"""The hub's cache: where it lies, and what is said where it cannot be written."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from reference.file_systems import mounted, read_only
from reference.hub_server import commit_of, hub_server, library_is_offline

from actshift.errors import UserError
from actshift.models.hub import fetch, fetch_data, offline, page, resolve
from actshift.models.on_disk import cached_snapshot

VARIABLES = (
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_ENDPOINT"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"),
    *("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
)
Place = Callable[[Path], AbstractContextManager[object]]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One model and one data set on a hub of this machine."""
    if library_is_offline():
        pytest.skip("the hub library is offline in this process")
    for repo, files in (
        ("org/name", {"config.json": "{}", "model.safetensors": "w" * 9000}),
        ("datasets/org/set", {"rows.jsonl": '{"text": "x"}\n'}),
    ):
        folder = tmp_path / "served" / repo
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    # Facts about a data set are asked for by its bare id.
    (tmp_path / "served/org/set").symlink_to(tmp_path / "served/datasets/org/set")
    with hub_server(tmp_path / "served") as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield endpoint


def lay_out(cache: Path) -> Path:
    """A model in a cache, as the library lays it out."""
    snapshot = cache / "models--org--name/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"w")
    (cache / "models--org--name/refs").mkdir()
    (cache / "models--org--name/refs/main").write_text("a" * 40)
    return snapshot


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HOME", "hub"),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
@pytest.mark.parametrize("off", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_cache_lies_where_the_library_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str, off: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv(off, "1")
    snapshot = lay_out(tmp_path / below)
    assert offline()
    assert fetch("org/name") == (snapshot, "a" * 40)
    assert cached_snapshot("org/name") == snapshot
    assert resolve("org/name") == "a" * 40
    with pytest.raises(UserError) as caught:
        fetch("org/other")
    assert f"{off} is set: unset it" in str(caught.value)
    if variable != "XDG_CACHE_HOME":
        assert str(caught.value).endswith(f"set {variable}")


def no_folder(_: Path) -> AbstractContextManager[object]:
    return nullcontext()


def a_file(folder: Path) -> AbstractContextManager[object]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("")
    return nullcontext()


def a_read_only_disk(folder: Path) -> AbstractContextManager[object]:
    return mounted(folder, "ro")


def a_small_disk(folder: Path) -> AbstractContextManager[object]:
    return mounted(folder, "size=8k")


@pytest.mark.parametrize(
    ("place", "below", "reason"),
    [
        (no_folder, Path("/proc/nowhere"), "No such file or directory"),
        (a_file, None, "Not a directory"),
        (a_read_only_disk, None, "Read-only file system"),
        (a_small_disk, None, "No space left on device"),
    ],
)
@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
# The library warns of too small a disk before it fails on it.
@pytest.mark.filterwarnings("ignore:Not enough free disk space:UserWarning")
@pytest.mark.usefixtures("hub")
def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Place,
    below: Path | None,
    reason: str,
    variable: str,
) -> None:
    folder = below or tmp_path / "cache"
    monkeypatch.setenv(variable, str(folder))
    with place(folder), pytest.raises(UserError) as caught:
        fetch("org/name")
    line = str(caught.value)
    assert line.startswith(
        "hub model org/name@main is not whole in the cache and cannot be written"
    )
    assert str(folder) in line
    assert reason in line
    assert f"set {variable} to a folder with room that can be written" in line
    assert "\n" not in line


@pytest.mark.usefixtures("hub")
def test_data_sets_meet_the_same_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/proc/nowhere")
    with pytest.raises(UserError, match=r"^prompts\.x: hub dataset org/set@.* cannot be written"):
        fetch_data("org/set", "rows.jsonl", key="prompts.x")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path, commit = fetch_data("org/set", "rows.jsonl", key="prompts.x")
    assert path.read_text() == '{"text": "x"}\n'
    assert commit == commit_of("org/set")
    with pytest.raises(UserError, match=r"^prompts\.x\.file: no 'y\.jsonl' in org/set; see http"):
        fetch_data("org/set", "y.jsonl", key="prompts.x")


@pytest.mark.usefixtures("hub")
def test_a_whole_model_in_a_read_only_cache_needs_no_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder, commit = fetch("org/name")
    assert commit == commit_of("org/name")
    assert (folder / "model.safetensors").read_text() == "w" * 9000
    with read_only(tmp_path / "home"):
        assert fetch("org/name") == (folder, commit)


def test_an_address_without_a_scheme_is_no_failure_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example.org/")
    for call in (fetch, resolve):
        with pytest.raises(UserError, match=r"^HF_ENDPOINT: 'mirror\.example\.org' is no address"):
            call("org/name")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert page("org/name") == "http://mirror/org/name"
