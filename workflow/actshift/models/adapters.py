"""LoRA adapters as folders in peft's format: save, identify, measure, merge on load."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig

from actshift.errors import UserError, one_line, refusal_of
from actshift.models.adapter_format import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    A,
    B,
    base_name,
    check_folder,
    check_plain,
    check_shape,
    places_of,
    read_settings,
    scale_of,
    update_of,
    write_settings,
)
from actshift.models.load import Device, Dtype, LoadedModel, load_model, resolve_device, wrap_model


def save_adapter(wrapped: Any, folder: Path, *, base: str) -> None:
    """Save what was trained as a peft folder whose bytes depend on the training alone.

    `wrapped` is of `add_lora`, `folder` lies inside one that is published whole, and `base` is the
    hash of the weights that the adapter was trained on (`io.manifest.weights_hash`).
    """
    # peft asks the hub about embeddings otherwise, and these adapters never hold any.
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    settings = read_settings(folder)
    # A set in memory: its order changes from process to process.
    write_settings(folder, settings, targets=settings["target_modules"], base=base)


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter: its weights, its settings and (by name) the weights of its base.

    Raises:
        UserError: The folder holds no adapter.
    """
    check_folder(folder)
    files = (hashlib.sha256((folder / name).read_bytes()) for name in (CONFIG, WEIGHTS))
    return _joined(*(file.hexdigest() for file in files))


def adapter_size(folder: Path) -> tuple[int, float]:
    """(rank, alpha) of an adapter."""
    settings = read_settings(folder)
    return settings["r"], float(settings["lora_alpha"])


def merged_hash(checkpoint: Path, adapter: Path) -> str:
    """Hash of a base with an adapter in it: under another base it is another model."""
    return _joined(_weights_hash(checkpoint), adapter_hash(adapter))


def load_merged(
    checkpoint: Path, adapter: Path, *, name: str, dtype: Dtype = "auto", device: Device = "auto"
) -> LoadedModel:
    """Load a base and add an adapter to its weights: W + scale B A, summed in float32.

    Nothing but the two folders is read, and peft is not imported: its own loader would follow the
    base's name to a hub, and takes longer to import than a small model to load. `dtype` is that of
    the forward pass, after merging; `auto` is the checkpoint's own. Merging is done on the CPU, so
    that bits do not depend on the device.

    Raises:
        UserError: The folder holds no adapter, one of another base, or one that does not fit.
    """
    target = resolve_device(device)
    _check_base(checkpoint, adapter, name)
    loaded = load_model(checkpoint, name=name, dtype="float32", device="cpu")
    model: Any = loaded.model
    _add(model, adapter, name)
    nn.Module.to(model, target, own_dtype(checkpoint) if dtype == "auto" else getattr(torch, dtype))
    return wrap_model(model.eval(), loaded.tokenizer, name=name)


def own_dtype(checkpoint: Path) -> torch.dtype:
    """The dtype that a checkpoint's config.json names for it; float32 where it names none."""
    config: Any = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    return config.dtype or torch.float32


def delta_norm(adapter: Path, base: LoadedModel) -> tuple[float, float]:
    """How far an adapter moves the weights.

    ‖ΔW‖ = (Σ_m ‖scale_m B_m A_m‖_F²)^½ over the adapted matrices m; the share divides by
    (Σ_m ‖W_m‖_F²)^½ of the same matrices. The base is not quantised.

    Returns:
        (norm, share of the norm of those weights).
    """
    scale = scale_of(read_settings(adapter))
    tensors = load_file(adapter / WEIGHTS)
    moved = whole = 0.0
    for key in sorted(name for name in tensors if name.endswith(A)):
        place = key.removesuffix(A)
        a, b = tensors[key].double(), tensors[place + B].double()
        # ‖BA‖² = tr(BᵀB AAᵀ): rank x rank, never the whole matrix.
        moved += scale**2 * float(((b.T @ b) * (a @ a.T)).sum())
        weight = base.model.get_submodule(place.removeprefix(PREFIX)).get_parameter("weight")
        whole += float(weight.double().square().sum())
    return math.sqrt(moved), math.sqrt(moved / whole)


@torch.no_grad()
def _add(model: Any, adapter: Path, name: str) -> None:
    """Add an adapter to a model's own weights, matrix by matrix.

    Raises:
        UserError: It is no plain LoRA, or a matrix has no place or a wrong shape.
    """
    settings = read_settings(adapter)
    try:
        check_plain(settings)
        tensors = load_file(adapter / WEIGHTS)
        places = places_of(tensors)
        updates = {place.removeprefix(PREFIX): update_of(tensors, place) for place in places}
        if set(updates) != _targets(model, settings["target_modules"]):
            raise ValueError("its matrices are not all those of target_modules")
        for place, update in sorted(updates.items()):
            check_shape(model, place, update)
            weight = model.get_submodule(place).get_parameter("weight")
            weight += update * scale_of(settings)
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        if refusal_of(error) is not None:
            raise
        raise UserError(
            f"{name}: cannot add the adapter in {adapter} ({one_line(error)}); delete this "
            "folder of the run and run the same command again"
        ) from error


def _targets(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Places of all linear maps that some names stand for: whole paths, or how a path ends."""
    ends = tuple(f".{name}" for name in names)
    linear = (place for place, part in model.named_modules() if isinstance(part, nn.Linear))
    return {place for place in linear if place in names or place.endswith(ends)}


def _joined(*hashes: str) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _weights_hash(checkpoint: Path) -> str:
    """What the checkpoint's manifest says (`io.manifest`, which stands beside this package)."""
    path = checkpoint / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["facts"]["weights_hash"]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{path}: names no hash of weights, so no adapter can be told to fit; run the rule "
            "checkpoint again"
        ) from None


def _check_base(checkpoint: Path, adapter: Path, name: str) -> None:
    check_folder(adapter)
    settings = read_settings(adapter)
    if settings.get("base_model_name_or_path") != base_name(_weights_hash(checkpoint)):
        raise UserError(
            f"{name}: the adapter in {adapter} was trained on other weights than those in "
            f"{checkpoint}; train it again on this model"
        )
