"""Quantised checkpoints, written as their makers write them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from reference.tiny_models import seal_checkpoint
from safetensors.torch import load_file, save_file

#: What the quantisers write into config.json.
METHODS: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "gptq": {"bits": 4, "group_size": 128},
    "awq": {"bits": 4, "group_size": 128, "version": "gemm"},
    "compressed-tensors": {"format": "float-quantized", "config_groups": {}},
}


def claim_quantised(folder: Path, method: str, **settings: Any) -> Path:
    """Let a checkpoint's config.json say how its weights are quantised."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": method, **METHODS.get(method, {}), **settings}
    path.write_text(json.dumps(config))
    return folder


def fp8_checkpoint(source: Path, folder: Path, *, block: int = 128) -> dict[str, torch.Tensor]:
    """Write a model's block matrices in fp8 with a scale a block, all else in bfloat16.

    Args:
        source: A checkpoint in float32.
        folder: To make.
        block: Side of a block.

    Returns:
        Every weight in float32 as the file says it: what a reader must find.
    """
    shutil.copytree(source, folder)
    told: dict[str, torch.Tensor] = {}
    held: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if "_proj.weight" not in name:
            held[name] = weight.bfloat16()
            told[name] = held[name].float()
            continue
        size = min(block, *weight.shape)
        rows, columns = (side // size for side in weight.shape)
        tiles = weight.reshape(rows, size, columns, size)
        scale = tiles.abs().amax((1, 3), keepdim=True) / 448
        coded = (tiles / scale).to(torch.float8_e4m3fn)
        held[name] = coded.reshape(weight.shape)
        held[name.replace(".weight", ".weight_scale_inv")] = scale.reshape(rows, columns)
        told[name] = (coded.float() * scale).reshape(weight.shape)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    claim_quantised(
        folder, "fp8", activation_scheme="dynamic", weight_block_size=[block, block],
        modules_to_not_convert=["lm_head"],
    )  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "bfloat16"}))
    seal_checkpoint(folder)
    return told
