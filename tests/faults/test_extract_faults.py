"""What a machine does to an extraction: kills, full disks, flipped bytes, broken weights."""

import dataclasses
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.processes import kill_when
from reference.tiny_models import seal_checkpoint
from safetensors.torch import load_file, save_file

from actshift.engine.extract import ExtractSettings, extract, plan_job
from actshift.errors import StoreError, UserError
from actshift.io import layout as layout_module
from actshift.io.atomic import tree_files
from actshift.io.store import ActivationStore, verify_store

SETTINGS = ExtractSettings(token_budget=24, device="cpu")
SHARDS = "acts.zarr/resid_post/c/0/0"
# The subprocess that gets killed cuts the same small windows as this process.
SCRIPT = """
import pathlib, pickle, sys
from actshift.io import layout
layout.WINDOW_PROMPTS = 2
layout.CHUNK_BYTES = 2048
from actshift.engine.extract import extract
stream, settings = pickle.loads(bytes.fromhex(sys.argv[1]))
extract(stream, cache=pathlib.Path(sys.argv[2]), settings=settings, code="c0")
"""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(layout_module, "WINDOW_PROMPTS", 2)
    monkeypatch.setattr(layout_module, "CHUNK_BYTES", 2048)


@pytest.fixture
def stream(make_stream, make_prompts):
    return make_stream(prompts=make_prompts(40), positions="last_8")


def run(stream, cache: Path, settings=SETTINGS) -> ActivationStore:
    extract(stream, cache=cache, settings=settings, code="c0")
    return ActivationStore.open(stream.out)


def kill_midway(stream, cache: Path, windows: int) -> Path:
    """Start the extraction elsewhere, SIGKILL it once some windows are there; return staging."""
    staging = cache / f"{plan_job(stream, SETTINGS, code='c0').key}.partial"
    blob = pickle.dumps((stream, SETTINGS)).hex()
    kill_when(
        lambda: len(list((staging / SHARDS).glob("*/0"))) >= windows, SCRIPT, blob, str(cache)
    )
    return staging


def by_number(staging: Path) -> list[Path]:
    return sorted((staging / SHARDS).glob("*/0"), key=lambda path: int(path.parent.name))


def same_files(one: Path, other: Path) -> bool:
    names = tree_files(one)
    return names == tree_files(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def test_a_killed_extraction_resumes_and_ends_byte_identical(stream, tmp_path):
    staging = kill_midway(stream, tmp_path / "killed", windows=5)
    assert not stream.out.exists()
    assert 5 <= len(by_number(staging)) < 20
    undisturbed = dataclasses.replace(stream, out=tmp_path / "undisturbed")
    run(undisturbed, tmp_path / "cache")
    for harm in (leave_a_partial_file, damage_the_last_window, change_the_plan):
        shutil.copytree(tmp_path / "killed", tmp_path / harm.__name__)
        resumed = tmp_path / harm.__name__ / staging.name
        harm(resumed)
        kept = {path: path.stat().st_ino for path in by_number(resumed)[:-2]}
        run(stream, tmp_path / harm.__name__)
        assert same_files(stream.out, undisturbed.out), harm
        again = [stream.out / path.relative_to(resumed) for path in kept]
        untouched = [path.stat().st_ino for path in again] == list(kept.values())
        assert untouched == (harm is not change_the_plan)


def leave_a_partial_file(staging: Path) -> None:
    stray = staging / SHARDS / "9" / "0.0123abc.partial"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"half")


def damage_the_last_window(staging: Path) -> None:
    both = (staging / SHARDS, staging / "acts.zarr/final_norm/c/0")
    resid, final = ({int(path.parent.name) for path in folder.glob("*/0")} for folder in both)
    last = staging / SHARDS / str(max(resid & final)) / "0"
    data = bytearray(last.read_bytes())
    data[5] ^= 255
    last.write_bytes(data)


def change_the_plan(staging: Path) -> None:
    (staging / "ready.json").write_text('"of other settings"')


def test_a_damaged_cache_entry_is_read_again(stream, tmp_path, capsys):
    store = run(stream, tmp_path / "cache")
    shard = store.folder / SHARDS / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    # In place, so that the hard link in the cache is damaged too.
    with shard.open("r+b") as file:
        file.write(data)
    assert verify_store(store.folder)
    assert verify_store(run(stream, tmp_path / "cache").folder) == []
    assert "cached stream is damaged" in capsys.readouterr().err


def test_nan_weights_are_named_by_model_prompt_and_layer(stream, own_checkpoint, tmp_path):
    folder = own_checkpoint()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    broken = dataclasses.replace(stream, checkpoint=seal_checkpoint(folder), model="llama.tuned")
    with pytest.raises(StoreError, match=r"llama\.tuned: prompt 'p\d+', layer 1: .* nan"):
        run(broken, tmp_path / "cache")
    assert not broken.out.exists()


def test_activations_too_large_for_float16_are_refused(stream, own_checkpoint, tmp_path):
    folder = own_checkpoint()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    large = dataclasses.replace(stream, checkpoint=seal_checkpoint(folder))
    half = dataclasses.replace(SETTINGS, storage="float16")
    with pytest.raises(StoreError, match=r"prompt 'p\d+', layer 2: .*does not fit float16"):
        run(large, tmp_path / "cache", half)
    assert np.abs(run(large, tmp_path / "cache").read(2)).max() > 65504


def test_a_checkpoint_that_differs_from_its_manifest_is_refused(stream, own_checkpoint, tmp_path):
    folder = own_checkpoint()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors: holds .* make this checkpoint again"):
        run(dataclasses.replace(stream, checkpoint=folder), tmp_path / "cache")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("no permission to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_the_rest_follows_when_there_is_room(stream, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (800 * 1024))
    cache = small_disk / "cache"
    with pytest.raises(UserError, match="No space left") as caught:
        run(stream, cache)
    assert "\n" not in str(caught.value)
    assert not stream.out.exists()
    shards = list(cache.glob(f"*.partial/{SHARDS}/*/0"))
    written = {path.parent.name: path.stat().st_mtime_ns for path in shards}
    assert written
    ballast.unlink()
    store = run(stream, cache)
    assert verify_store(store.folder) == []
    for name in sorted(written, key=int)[:-1]:
        assert (
            cache / store.manifest["facts"]["key"] / SHARDS / name / "0"
        ).stat().st_mtime_ns == (written[name])
