"""LoRA adapters as folders in peft's format: save, identify, measure, merge on load.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. The base is named by the hash
of its weights, never by a path: a folder may move, and another base is noticed.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig

from actshift.errors import UserError
from actshift.io.atomic import atomic_write_text
from actshift.io.hashing import hash_file, hash_json
from actshift.io.manifest import weights_hash
from actshift.models.load import Device, Dtype, LoadedModel, load_model, resolve_device, wrap_model
from actshift.models.lora import merge_lora

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def save_adapter(wrapped: Any, folder: Path, *, base: str) -> None:
    """Save what was trained as a peft folder whose bytes depend on the training alone.

    Args:
        wrapped: Of `add_lora`.
        folder: To make; its parent exists.
        base: Hash of the weights the adapter was trained on (`io.manifest.weights_hash`).
    """
    # peft asks the hub about embeddings otherwise, and these adapters never hold any.
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    # A set in memory: its order changes from process to process.
    settings["target_modules"] = sorted(settings["target_modules"])
    settings["base_model_name_or_path"] = _base_name(base)
    text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
    atomic_write_text(folder / CONFIG, text + "\n")


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter: its weights, its settings and (by name) the weights of its base.

    Raises:
        UserError: The folder holds no adapter.
    """
    _check(folder)
    return hash_json({name: hash_file(folder / name) for name in (CONFIG, WEIGHTS)})


def merged_hash(checkpoint: Path, adapter: Path) -> str:
    """Hash of a base with an adapter in it: another base under the same adapter is another model.

    Args:
        checkpoint: Folder of the base, with its manifest.
        adapter: Folder of the adapter.
    """
    return hash_json({"base": weights_hash(checkpoint), "adapter": adapter_hash(adapter)})


def load_merged(
    checkpoint: Path, adapter: Path, *, name: str, dtype: Dtype = "auto", device: Device = "auto"
) -> LoadedModel:
    """Load a base and add an adapter to its weights: W + scale B A, summed in float32.

    Nothing but the two folders is read: peft's own loader would follow the base's name to a hub.

    Args:
        checkpoint: Folder of the base, with its manifest.
        adapter: Folder of `save_adapter`.
        name: How to call the model in messages.
        dtype: Of the forward pass, after merging; `auto` is the checkpoint's own.
        device: Where to run; merging is done on the CPU, so that bits do not depend on it.

    Returns:
        An ordinary model in evaluation mode, gradients off.

    Raises:
        UserError: The folder holds no adapter, one of another base, or one that does not fit.
    """
    target = resolve_device(device)
    _check_base(checkpoint, adapter, name)
    loaded = load_model(checkpoint, name=name, dtype="float32", device="cpu")
    model: Any = merge_lora(_wrap(loaded.model, adapter, name))
    nn.Module.to(model, target, own_dtype(checkpoint) if dtype == "auto" else getattr(torch, dtype))
    return wrap_model(model.eval(), loaded.tokenizer, name=name)


def own_dtype(checkpoint: Path) -> torch.dtype:
    """The dtype that a checkpoint's config.json names for it; float32 where it names none."""
    config: Any = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    return config.dtype or torch.float32


def delta_norm(adapter: Path, base: LoadedModel) -> tuple[float, float]:
    """How far an adapter moves the weights.

    ‖ΔW‖ = (Σ_m ‖scale_m B_m A_m‖_F²)^½ over the adapted matrices m; the share divides by
    (Σ_m ‖W_m‖_F²)^½ of the same matrices.

    Args:
        adapter: Folder of the adapter.
        base: What it is for, not quantised.

    Returns:
        (norm, share of the norm of those weights).
    """
    settings = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    rank = settings["r"]
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings["use_rslora"] else rank)
    tensors = load_file(adapter / WEIGHTS)
    moved = whole = 0.0
    for key in sorted(name for name in tensors if name.endswith(_A)):
        place = key.removesuffix(_A)
        a, b = tensors[key].double(), tensors[place + _B].double()
        # ‖BA‖² = tr(BᵀB AAᵀ): rank x rank, never the whole matrix.
        moved += scale**2 * float(((b.T @ b) * (a @ a.T)).sum())
        weight = base.model.get_submodule(place.removeprefix(_PREFIX)).get_parameter("weight")
        whole += float(weight.double().square().sum())
    return math.sqrt(moved), math.sqrt(moved / whole)


def _wrap(model: Any, adapter: Path, name: str) -> Any:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        # Weights of the folder that found no place are a warning in peft.
        warnings.filterwarnings("error", ".*missing adapter keys.*")
        try:
            return PeftModel.from_pretrained(model, str(adapter))
        # peft, safetensors and torch raise many kinds; each is about this folder.
        except Exception as error:
            line = " ".join(str(error).split())[:160]
            raise UserError(
                f"{name}: cannot add the adapter in {adapter} ({line}); train it again"
            ) from error


def _base_name(weights: str) -> str:
    return f"weights-{weights}"


def _check(folder: Path) -> None:
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: expected an adapter folder of peft")


def _check_base(checkpoint: Path, adapter: Path, name: str) -> None:
    _check(adapter)
    settings = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    if settings.get("base_model_name_or_path") != _base_name(weights_hash(checkpoint)):
        raise UserError(
            f"{name}: the adapter in {adapter} was trained on other weights than those in "
            f"{checkpoint}; train it again on this model"
        )
