import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from actshift.io.manifest import write_manifest
from actshift.io.missed import Missed, mark_missed, write_marker
from actshift.io.tables import write_table


def shard_of(store: Path) -> Path:
    """The file with the chunks of the first window."""
    return next(
        path for path in sorted((store / "acts.zarr/resid_post/c").rglob("*/0")) if path.is_file()
    )


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def test_a_whole_run_a_store_and_a_checkpoint(actshift, run: Path, store: Path) -> None:
    paths = [run, store, store / "acts.zarr", run / "checkpoints/p.base"]
    for path in paths:
        result = actshift("verify", path, "--deep")
        assert result.exit_code == 0, result.output
        assert "damaged" not in result.stdout
    assert actshift("verify", run).stdout.count("whole /") == 2


def test_a_marker_of_a_missed_gate_is_no_damage(actshift, run: Path, store: Path) -> None:
    missed = Missed("zoo llama-micro-s0/chat", "gate missed, refused 8 % of 95 %", "All.", "zoo")
    shutil.rmtree(store)
    mark_missed(store, missed)
    # A model that misses its own gate is whole, with the marker beside its weights.
    own = run / "zoo" / "llama-micro-s0" / "chat"
    own.mkdir(parents=True)
    write_marker(own, missed)
    write_manifest(own, kind="zoo", facts={})
    for path in (run, store):
        result = actshift("verify", path, "--deep")
        assert result.exit_code == 0, result.output
        assert f"not measured: {missed.reason} {store}" in result.stdout
    whole = [line for line in actshift("verify", run).stdout.splitlines() if "whole" in line]
    assert whole == [f"whole {run / 'checkpoints/p.base'}", f"whole {own}"]


def test_a_flipped_byte_is_found_in_its_chunk(actshift, run: Path, store: Path) -> None:
    flip(shard_of(store), 10)
    for path in (store, run):
        result = actshift("verify", path)
        assert result.exit_code == 1
        assert "resid_post/c/0/0/0/0 chunk 0,0,0,0 is damaged" in result.stdout


def test_a_deleted_chunk_file_is_named(actshift, store: Path) -> None:
    shard = shard_of(store)
    shard.unlink()
    result = actshift("verify", store)
    assert result.exit_code == 1
    assert f"{shard}: missing" in result.stdout


def test_a_changed_label_is_found(actshift, store: Path) -> None:
    flip(store / "acts.zarr/zarr.json", 20)
    result = actshift("verify", store)
    assert result.exit_code == 1
    assert "zarr.json" in result.stdout


def test_nan_in_a_valid_row_is_found(actshift, store: Path) -> None:
    group = zarr.open_group(str(store / "acts.zarr"), mode="r+")
    acts = group["resid_post"]
    assert isinstance(acts, zarr.Array)
    acts[1, -1, 3, 2] = np.nan
    write_manifest(store, kind="activations", facts={})
    result = actshift("verify", store)
    assert result.exit_code == 1
    assert "NaN" in result.stdout
    assert "p3" in result.stdout


def test_a_lost_manifest_is_damage(actshift, run: Path, store: Path) -> None:
    (store / "manifest.json").unlink()
    for path in (store, run):
        result = actshift("verify", path)
        assert result.exit_code == 1
        assert "manifest.json: missing" in result.stdout


def test_weights_that_moved_away(actshift, run: Path, tmp_path: Path) -> None:
    (tmp_path / "model").rename(tmp_path / "moved")
    result = actshift("verify", run)
    assert result.exit_code == 1
    assert "p.base/model.safetensors: missing" in result.stdout


def test_changed_weights_are_found_by_deep_alone(actshift, run: Path, tmp_path: Path) -> None:
    flip(tmp_path / "model/model.safetensors", -1)
    assert actshift("verify", run).exit_code == 0
    result = actshift("verify", run, "--deep")
    assert result.exit_code == 1
    assert "p.base/model.safetensors: content differs" in result.stdout


def test_a_changed_config_is_found(actshift, run: Path, tmp_path: Path) -> None:
    flip(tmp_path / "model/config.json", 5)
    result = actshift("verify", run / "checkpoints/p.base")
    assert result.exit_code == 1
    assert "config.json: content differs" in result.stdout


def test_nothing_to_verify_is_a_mistake(actshift, run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    for path in (tmp_path / "nowhere", run / "checkpoints", tmp_path, __file__):
        result = actshift("verify", path)
        assert result.exit_code == 2, path
        assert result.stderr.count("\n") == 1


def test_an_edited_table_is_named(actshift, run: Path) -> None:
    path = run / "tables" / "rank_audit" / "rank.csv"
    write_table(pd.DataFrame({"rank_eps": [3]}), path)
    assert actshift("verify", run).exit_code == 0
    path.write_text(path.read_text().replace("3", "4"))
    done = actshift("verify", run)
    assert done.exit_code == 1
    assert "rank.csv: content differs from its sha256" in done.stdout
