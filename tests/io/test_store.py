import json
import shutil

import numpy as np
import pytest
import zarr
from reference.stores import rows_like, write_store

from actshift.errors import StoreError
from actshift.io import layout as layout_module
from actshift.io.layout import plan_layout
from actshift.io.store import ActivationStore, layer_norms, verify_folder, verify_store
from actshift.io.writer import ROW_DIMS, StoreWriter

SIZES = {"layers": 3, "positions": 2, "prompts": 11, "d_model": 8}


@pytest.fixture
def layout(monkeypatch):
    """Three windows (4, 4, 3), two chunks a window and layer."""
    monkeypatch.setattr(layout_module, "WINDOW_PROMPTS", 4)
    monkeypatch.setattr(layout_module, "CHUNK_BYTES", 128)
    return plan_layout(**SIZES)


@pytest.fixture
def values():
    draw = np.random.default_rng(0)
    return draw.standard_normal((3, 2, 11, 8), dtype=np.float32)


def test_reads_what_was_written(layout, values, tmp_path):
    store = ActivationStore.open(write_store(tmp_path / "s", layout, values))
    assert layout.windows == 3
    for layer in range(3):
        for row, position in enumerate((-2, -1)):
            np.testing.assert_array_equal(store.read(layer, position), values[layer, row])
    np.testing.assert_array_equal(np.asarray(store.array("final_norm")), values[-1])
    assert store.d_model == 8
    norms = np.linalg.norm(values.astype(np.float64), axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(layer_norms(store), norms)


def test_layout_on_disk_follows_the_design(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    group = zarr.open_group(str(folder / "acts.zarr"), mode="r")
    array = group["resid_post"]
    assert (array.shards, array.chunks) == ((3, 2, 4, 8), (1, 2, 2, 8))
    assert np.isnan(array.fill_value)
    for name, member in group.arrays():
        assert member.metadata.dimension_names, name
        assert '"crc32c"' in (folder / "acts.zarr" / name / "zarr.json").read_text()
    assert set(ROW_DIMS) | {"resid_post", "final_norm"} == set(group.array_keys())


def test_window_order_does_not_change_the_bytes(layout, values, tmp_path):
    one = write_store(tmp_path / "a", layout, values)
    other = write_store(tmp_path / "b", layout, values, order=[2, 0, 1])
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_all_zero_activations_are_written_and_verified(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, np.zeros_like(values))
    assert verify_store(folder) == []


def test_unknown_labels_are_refused_by_name(layout, values, tmp_path):
    store = ActivationStore.open(write_store(tmp_path / "s", layout, values))
    with pytest.raises(StoreError, match="has no layer 3; it has 0 to 2"):
        store.read(3)
    with pytest.raises(StoreError, match="has no position 0"):
        store.read(0, 0)
    with pytest.raises(StoreError, match="has no prompt 'zz'"):
        store.read(0, prompt_ids=["zz"])


def test_float16_keeps_what_fits_and_refuses_overflow(layout, values, tmp_path):
    store = ActivationStore.open(write_store(tmp_path / "s", layout, values, dtype="float16"))
    np.testing.assert_array_equal(store.read(0), values[0, 1].astype(np.float16))
    values[2, 1, 6, 3] = 70000.0
    with pytest.raises(StoreError, match=r"m: prompt 'p6', layer 2: .*70000; .*storage: float32"):
        write_store(tmp_path / "t", layout, values, dtype="float16")
    write_store(tmp_path / "u", layout, values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_where_it_first_appears(bad, layout, values, tmp_path):
    values[1:, 0, 9] = bad
    with pytest.raises(StoreError, match="m: prompt 'p9', layer 1: the activation is"):
        write_store(tmp_path / "s", layout, values)


def test_a_newer_schema_is_refused(layout, values, tmp_path, monkeypatch):
    monkeypatch.setattr("actshift.io.writer.STORE_SCHEMA", 99)
    folder = write_store(tmp_path / "s", layout, values)
    with pytest.raises(StoreError, match="has schema 99"):
        ActivationStore.open(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"has no acts\.zarr"):
        ActivationStore.open(tmp_path)
    assert "missing" in verify_folder(tmp_path)[0]


def test_every_flipped_byte_is_found(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    draw = np.random.default_rng(1)
    for path in files:
        data = path.read_bytes()
        for at in draw.integers(0, len(data), 1).tolist():
            path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            assert verify_store(folder), (path, at)
        path.write_bytes(data)
    assert verify_store(folder) == []


def test_a_flipped_byte_is_refused_when_read_and_named_by_its_chunk(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    path = folder / "acts.zarr/resid_post/c/0/0/1/0"
    data = bytearray(path.read_bytes())
    # The shard holds its chunks in some order; the first byte lies in exactly one of them.
    data[0] ^= 1
    path.write_bytes(data)
    store = ActivationStore.open(folder)
    failed = []
    for layer in range(3):
        try:
            np.testing.assert_array_equal(store.read(layer), values[layer, 1])
        except StoreError as error:
            failed.append(str(error))
    assert len(failed) == 1
    named = [line for line in verify_store(folder) if " chunk " in line]
    assert len(named) == 1
    assert "acts.zarr/resid_post/c/0/0/1/0 chunk" in named[0]
    assert named[0].split(" chunk ")[1].split(" is damaged")[0] in failed[0]


def test_a_deleted_chunk_never_reads_as_fill(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    (folder / "acts.zarr/resid_post/c/0/0/2/0").unlink()
    with pytest.raises(StoreError, match=r"resid_post/c/0/0/2/0: missing"):
        ActivationStore.open(folder)
    assert any("resid_post/c/0/0/2/0: missing" in line for line in verify_store(folder))


def test_a_truncated_shard_is_named(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    path = folder / "acts.zarr/final_norm/c/0/0/0"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StoreError, match=r"final_norm/c/0/0/0: holds \d+ bytes"):
        ActivationStore.open(folder)
    assert any("final_norm/c/0/0/0 chunk 0,0,0" in line for line in verify_store(folder))


def test_a_window_never_written_is_seen_even_with_a_fresh_manifest(layout, values, tmp_path):
    from actshift.io.manifest import write_manifest

    folder = write_store(tmp_path / "s", layout, values)
    (folder / "acts.zarr/resid_post/c/0/0/1/0").unlink()
    write_manifest(folder, kind="activations", facts={})
    store = ActivationStore.open(folder)
    with pytest.raises(StoreError, match="layer 0 holds NaN or inf in a valid row"):
        store.read(0)
    assert any("c/0/0/1/0" in line and "prompt 'p4'" in line for line in verify_store(folder))


def test_edited_metadata_is_refused(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    path = folder / "acts.zarr" / "zarr.json"
    text = path.read_text()
    edited = json.loads(text)
    edited["attributes"]["seed"] = 8
    path.write_text(json.dumps(edited)[: len(text)].ljust(len(text)))
    with pytest.raises(StoreError, match=r"zarr\.json: (content differs|holds)"):
        ActivationStore.open(folder)
    assert verify_store(folder)


def test_a_copied_store_still_verifies(layout, values, tmp_path):
    folder = write_store(tmp_path / "s", layout, values)
    shutil.copytree(folder, tmp_path / "t")
    assert verify_store(tmp_path / "t") == []


def test_a_window_that_cannot_be_read_now_is_not_dropped(layout, values, tmp_path):
    writer = StoreWriter(tmp_path / "s", layout, rows_like(values), attrs={"seed": 0})
    writer.write(0, resid_post=values[:, :, :4], final_norm=values[-1, :, :4], model="m")
    shard = tmp_path / "s/acts.zarr/resid_post/c/0/0/0/0"
    assert shard.is_file()
    kept = shard.rename(tmp_path / "kept")
    # A regular file that no process can read from its start: as on a disk that fails.
    shard.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"Input/output error"):
        writer.missing()
    assert shard.is_symlink()
    shard.unlink()
    kept.rename(shard)
    assert writer.missing() == [1, 2]
