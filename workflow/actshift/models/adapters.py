"""LoRA adapters as folders in peft's format: save, identify, measure, merge on load.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. The base is named by the hash
of its weights, never by a path: a folder may move, and another base is noticed.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig

from actshift.errors import UserError
from actshift.models.load import Device, Dtype, LoadedModel, load_model, resolve_device, wrap_model

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
#: Settings of peft that make an update something else than scale B A of linear maps.
_UNLIKE_LORA = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save"),
    *("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters"),
    *("trainable_token_indices", "layers_to_transform", "alora_invocation_tokens"),
)
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def save_adapter(wrapped: Any, folder: Path, *, base: str) -> None:
    """Save what was trained as a peft folder whose bytes depend on the training alone.

    Args:
        wrapped: Of `add_lora`.
        folder: To make, inside one that is published whole.
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
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter: its weights, its settings and (by name) the weights of its base.

    Raises:
        UserError: The folder holds no adapter.
    """
    _check(folder)
    files = (hashlib.sha256((folder / name).read_bytes()) for name in (CONFIG, WEIGHTS))
    return _joined(*(file.hexdigest() for file in files))


def merged_hash(checkpoint: Path, adapter: Path) -> str:
    """Hash of a base with an adapter in it: another base under the same adapter is another model.

    Args:
        checkpoint: Folder of the base, with its manifest.
        adapter: Folder of the adapter.
    """
    return _joined(_weights_hash(checkpoint), adapter_hash(adapter))


def load_merged(
    checkpoint: Path, adapter: Path, *, name: str, dtype: Dtype = "auto", device: Device = "auto"
) -> LoadedModel:
    """Load a base and add an adapter to its weights: W + scale B A, summed in float32.

    Nothing but the two folders is read, and peft is not imported: its own loader would follow the
    base's name to a hub, and takes longer to import than a small model to load.

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
    (Σ_m ‖W_m‖_F²)^½ of the same matrices.

    Args:
        adapter: Folder of the adapter.
        base: What it is for, not quantised.

    Returns:
        (norm, share of the norm of those weights).
    """
    scale = _scale(_settings(adapter))
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


@torch.no_grad()
def _add(model: Any, adapter: Path, name: str) -> None:
    """Add an adapter to a model's own weights, matrix by matrix.

    Raises:
        UserError: It is no plain LoRA, or a matrix has no place or a wrong shape.
    """
    settings = _settings(adapter)
    try:
        _check_plain(settings)
        tensors = load_file(adapter / WEIGHTS)
        places = {key.removesuffix(_A) for key in tensors if key.endswith(_A)}
        if sorted(tensors) != sorted(place + part for place in places for part in (_A, _B)):
            raise ValueError("its matrices A and B are not in pairs")
        updates = {place.removeprefix(_PREFIX): _update(tensors, place) for place in places}
        if set(updates) != _targets(model, settings["target_modules"]):
            raise ValueError("its matrices are not all those of target_modules")
        for place, update in sorted(updates.items()):
            weight = model.get_submodule(place).get_parameter("weight")
            if weight.shape != update.shape:
                raise ValueError(f"{place}: {[*update.shape]} for {[*weight.shape]}")
            weight += update * _scale(settings)
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(
            f"{name}: cannot add the adapter in {adapter} ({line}); train it again"
        ) from error


def _targets(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Places of all linear maps of some names."""
    linear = (place for place, part in model.named_modules() if isinstance(part, nn.Linear))
    return {place for place in linear if place.rpartition(".")[2] in names}


def _update(tensors: Mapping[str, Tensor], place: str) -> Tensor:
    """B A of one matrix, float32."""
    return tensors[place + _B].float() @ tensors[place + _A].float()


def _settings(adapter: Path) -> dict[str, Any]:
    return json.loads((adapter / CONFIG).read_text(encoding="utf-8"))


def _scale(settings: Mapping[str, Any]) -> float:
    """What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) of rsLoRA."""
    rank = settings["r"]
    return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _check_plain(settings: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA.

    Raises:
        ValueError: Naming the setting.
    """
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        raise ValueError(f"peft_type {settings.get('peft_type')}, bias {settings.get('bias')}")
    unlike = [key for key in _UNLIKE_LORA if settings.get(key)]
    if unlike:
        raise ValueError(f"{unlike[0]} is not supported, only plain LoRA")


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


def _base_name(weights: str) -> str:
    return f"weights-{weights}"


def _check(folder: Path) -> None:
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: expected an adapter folder of peft")


def _check_base(checkpoint: Path, adapter: Path, name: str) -> None:
    _check(adapter)
    settings = _settings(adapter)
    if settings.get("base_model_name_or_path") != _base_name(_weights_hash(checkpoint)):
        raise UserError(
            f"{name}: the adapter in {adapter} was trained on other weights than those in "
            f"{checkpoint}; train it again on this model"
        )
