"""Parameters counted from headers alone, against the arrays that were written."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from actshift.models.files import count_parameters


def test_shards_add_up_in_any_float(tmp_path: Path) -> None:
    save_file({"a": np.zeros((3, 5), np.float32)}, tmp_path / "model-1.safetensors")
    arrays = {"b": np.zeros(7, np.float16), "c": np.zeros((), np.float64)}
    save_file(arrays, tmp_path / "model-2.safetensors", metadata={"format": "pt"})
    assert count_parameters(tmp_path) == 15 + 7 + 1


def test_masks_and_tables_of_old_checkpoints_are_no_parameters(tmp_path: Path) -> None:
    arrays = {
        "h.0.attn.bias": np.ones((1, 1, 64, 64), np.float32),
        "h.0.attn.masked_bias": np.ones((), np.float32),
        "transformer.h.1.attn.bias": np.ones((1, 1, 64, 64), np.uint8),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
        "embeddings.position_ids": np.arange(9),
        "h.0.attn.c_attn.bias": np.zeros(12, np.float32),
        "h.0.mlp.c_fc.weight": np.zeros((4, 6), np.float32),
    }
    save_file(arrays, tmp_path / "model.safetensors")
    assert count_parameters(tmp_path) == 12 + 24


@pytest.mark.parametrize("packed", [np.uint8, np.int32])
def test_packed_weights_have_no_count(tmp_path: Path, packed: type) -> None:
    arrays = {"embed": np.zeros((10, 10), np.float32), "q": np.zeros((90, 90), packed)}
    save_file(arrays, tmp_path / "model.safetensors")
    assert count_parameters(tmp_path) is None


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]", b"\x10\0\0\0\0\0\0\0{"]
)
def test_damage_has_no_count(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    assert count_parameters(tmp_path) is None


def test_links_are_followed_while_they_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "folder").mkdir()
    save_file({"a": np.zeros(4, np.float32)}, tmp_path / "models/model.safetensors")
    link = tmp_path / "folder/model.safetensors"
    link.symlink_to(tmp_path / "models/model.safetensors")
    assert count_parameters(tmp_path / "folder") == 4
    (tmp_path / "models/model.safetensors").unlink()
    assert count_parameters(tmp_path / "folder") is None
    assert count_parameters(tmp_path / "no") is None
