import json

import pytest

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text, hash_json
from actshift.io.manifest import SMALL, check_manifest, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    atomic_write_text(tmp_path / "f" / "sub" / "a.txt", "abc")
    (tmp_path / "f" / "big").write_bytes(b"\0" * SMALL)
    write_manifest(tmp_path / "f", kind="test", facts={"x": 1})
    return tmp_path / "f"


def test_records_sizes_and_the_hashes_of_small_files(folder):
    manifest = read_manifest(folder)
    assert manifest["facts"] == {"x": 1}
    assert manifest["files"]["big"] == {"size": SMALL, "sha256": None}
    assert len(manifest["files"]["sub/a.txt"]["sha256"]) == 64
    assert check_manifest(folder, deep=True) == []


def test_equal_folders_have_equal_manifests(folder):
    before = (folder / "manifest.json").read_bytes()
    (folder / ".snakemake_timestamp").touch()
    write_manifest(folder, kind="test", facts={"x": 1})
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("deep", [False, True])
def test_names_what_is_missing_strange_or_cut(folder, deep):
    (folder / "sub" / "a.txt").unlink()
    (folder / "big").write_bytes(b"\0")
    (folder / "sub" / "stranger").touch()
    found = " | ".join(check_manifest(folder, deep=deep))
    assert "a.txt: missing" in found
    assert "big: holds 1 bytes" in found
    assert "stranger: not in the manifest" in found


def test_only_the_deep_check_reads_content(folder):
    (folder / "sub" / "a.txt").write_text("abd")
    assert check_manifest(folder) == []
    assert "sub/a.txt: content differs" in check_manifest(folder, deep=True)[0]


def test_an_edited_manifest_is_seen(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"]["x"] = 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="does not carry its own sha256"):
        read_manifest(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_broken_manifest_is_one_line(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError):
        read_manifest(folder)


def test_a_missing_manifest_means_unfinished(tmp_path):
    with pytest.raises(UserError, match="not a finished artifact"):
        read_manifest(tmp_path)


def test_json_hash_ignores_key_order_and_refuses_nan():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        hash_json({"a": float("nan")})
